"""From the norms of a step to the noise scale, and from it to the batch size."""
