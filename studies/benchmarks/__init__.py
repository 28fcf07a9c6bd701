"""Studies: benchmarks."""
