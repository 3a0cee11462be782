"""What every algorithm offers to the training loop.

NOTE FOR THE PLUMBING: batches are packed, without padding; learner/batching.py is the one and only batch type.
"""
