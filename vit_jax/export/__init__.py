"""A model as a folder that other programs run without this package: program, weights, a card."""
