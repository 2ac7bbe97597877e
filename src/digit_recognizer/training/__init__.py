"""All that needs Keras: networks, their training, and the members of a run."""
