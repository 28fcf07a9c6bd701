"""Topological features of data and of what the layers of a network make of them."""
