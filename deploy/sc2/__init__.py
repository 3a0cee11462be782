"""Installs StarCraft II, SMAC and its Python packages; see `make sc2` and `make sc2-python`."""
