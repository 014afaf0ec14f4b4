"""Training sequences: mixture, order, packing, pairs and conversations."""
