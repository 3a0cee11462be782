"""The replay service: the one address of a run; its truth is in Redis."""
