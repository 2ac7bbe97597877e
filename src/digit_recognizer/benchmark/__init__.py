"""Measured comparisons with other ways to do the same; scripts/benchmark.py runs them."""
