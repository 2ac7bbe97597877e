"""A trained ensemble at work: on pictures of a person, as a page, as a file for elsewhere."""
