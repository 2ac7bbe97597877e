"""One run directory, and what it is to train."""
