"""The benchmarks of the paper: their files, their records, one shape for all."""
