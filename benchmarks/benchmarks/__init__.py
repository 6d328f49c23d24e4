"""asv's benchmarks of cylstm: modules bench_*, over the shapes in `common`."""

import os

# Before NumPy is imported: threads are cylstm's, as many as a benchmark's parameter says.
for library in ("OMP", "OPENBLAS", "MKL"):
    os.environ[f"{library}_NUM_THREADS"] = "1"
