"""The decoder: attention, positions, normalisation, feed-forward, the fused loss, generation."""
