"""A person's own pictures of digits: the digits found in them, and what the ensemble reads."""
