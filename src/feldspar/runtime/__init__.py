"""How a run is executed and kept: folder, checkpoints, guards, signals, processes, device."""
