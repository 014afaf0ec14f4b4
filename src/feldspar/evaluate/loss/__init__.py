"""Loss and bits per byte of held-out text."""
