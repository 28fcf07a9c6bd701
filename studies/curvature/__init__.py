"""Studies: curvature."""
