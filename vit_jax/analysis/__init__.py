"""What a model learned, as arrays and as pictures."""
