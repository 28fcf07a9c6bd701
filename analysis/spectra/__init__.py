"""Matrix-free numerics."""
