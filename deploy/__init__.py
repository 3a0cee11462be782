"""The command line, the local cluster, and what runs the system elsewhere."""
