"""Rules for layers other than norms: linear, embedding, fused head, and one example at a time."""
