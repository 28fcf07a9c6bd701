"""Analyzers for any PyTorch model."""
