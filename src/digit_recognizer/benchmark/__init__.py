"""Measured comparisons with the usual ways to do the same work."""

PARTS = ("train", "read", "predict", "accuracy")  # the last takes up to an hour for each seed
