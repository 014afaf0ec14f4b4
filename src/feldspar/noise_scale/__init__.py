"""Per-example gradient norms, and the gradient noise scale from them."""
