"""Compute the noise scale from the norms of steps, and choose the batch size by it."""
