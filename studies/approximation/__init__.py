"""Studies: approximation."""
