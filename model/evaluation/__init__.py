"""Evaluation: scores, maps, tables and figures of trained networks on labelled images."""
