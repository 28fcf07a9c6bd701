"""Studies: invariance."""
