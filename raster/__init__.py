"""Any image in, pixels and files out; numpy only."""
