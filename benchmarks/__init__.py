"""How fast cylstm is: `benchmarks` is an asv suite, `peers` compares it with other libraries."""
