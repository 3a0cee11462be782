"""Compiled loops over time steps, for the CPU."""
