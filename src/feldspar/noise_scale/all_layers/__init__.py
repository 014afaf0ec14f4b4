"""Rules for the other layers: linear, embedding, fused head, and one example at a time."""
