"""Measurements of vj, for people with a clone: `python -m benchmarks` runs what the machine has data for."""
