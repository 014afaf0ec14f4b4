"""Training: the trainer, its tasks, optimizer and observers, and runs that resume exactly."""
