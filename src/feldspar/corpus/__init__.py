"""Documents in, documents out: sources, cleaning, deduplication, split."""
