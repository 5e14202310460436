"""HTTP in; records and files out."""
