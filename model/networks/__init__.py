"""Segmentation networks: built by name, and where their first weights come from."""
