"""Groups of commands, one thin module each."""
