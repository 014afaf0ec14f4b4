"""What the benchmarks compare, and the machine they ran on."""
