"""RevBiFPN (2206.14098): a reversible bidirectional feature pyramid, and its classifier."""
