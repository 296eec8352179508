"""Checkpoints: a run's states, released files of other projects, and surgery between models."""
