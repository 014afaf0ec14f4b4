"""Tasks: labels, filled gaps, retrieval and lm-eval."""
