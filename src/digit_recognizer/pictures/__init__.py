"""Pictures of digits: reading a file, finding its digits, and normalizing each to MNIST's form."""
