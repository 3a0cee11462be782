"""The loops over an episode's bytes, compiled. common/payload.py says what the bytes mean."""
