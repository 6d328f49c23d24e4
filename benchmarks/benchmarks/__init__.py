"""asv's benchmarks of cylstm: modules bench_*, over the shapes in `common`."""
