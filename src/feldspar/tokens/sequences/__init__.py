"""Training sequences: mixture, order, packing and pairs."""
