"""Training: tasks, optimizer, the loop over phases, runs that resume exactly."""
