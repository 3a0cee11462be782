"""Plays episodes: environments, policy, rollout, and the clients that send episodes and fetch weights."""
