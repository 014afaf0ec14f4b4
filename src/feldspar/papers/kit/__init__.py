"""The parts that all experiments share: stages of runs, claims with verdicts, costs, the report."""
