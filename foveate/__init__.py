"""Foveate's contract with the outside: errors, wire schema, client and command line. Imports none of our packages."""

__version__ = "0.1.0"
