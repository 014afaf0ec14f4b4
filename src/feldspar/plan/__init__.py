"""The plan of a run from its recipe alone: timeline, parameters, FLOPs, memory and time."""
