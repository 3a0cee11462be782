"""What every process shares: data that travels, its encoding, RPC set-up, lifecycle, the agent network."""
