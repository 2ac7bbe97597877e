"""Measured comparisons with the usual ways to do the same work, PyTorch's among them."""
