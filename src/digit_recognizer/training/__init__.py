"""Training with Keras: networks, the training of a run's members, on this machine or on Ray, and prediction."""
