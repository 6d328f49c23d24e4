"""Long runs and faults: see `python -m tools.soak --help`."""
