"""Gradient flow: how signals, gradients and kernels travel through depth, width and time."""
