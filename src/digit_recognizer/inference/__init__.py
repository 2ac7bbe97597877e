"""A trained ensemble at work: it reads users' pictures, serves a page to draw on, and is exported as one network."""
