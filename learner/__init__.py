"""Trains: networks, losses, algorithms, and the loop that turns batches into weights."""
