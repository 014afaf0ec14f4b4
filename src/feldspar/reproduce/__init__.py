"""One module a paper: its claims, its experiment, its figure."""
