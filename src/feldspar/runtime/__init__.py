"""Execute and record a run: folder, checkpoints, guards, signals, processes, device."""
