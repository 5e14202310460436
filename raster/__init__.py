"""Any image in, pixels and files out; no torch."""
