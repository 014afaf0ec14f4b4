"""Programs that a model writes: run in a sandbox, and counted as solved or not."""
