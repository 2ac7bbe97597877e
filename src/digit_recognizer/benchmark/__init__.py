"""Measured comparisons with the usual ways to do the same work."""

PARTS = ("train", "read", "predict", "submission", "accuracy")
SLOW = ("submission", "accuracy")  # up to an hour, on a processor or for each seed
