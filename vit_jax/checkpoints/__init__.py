"""Checkpoints: the state of a run, released files of other projects, and surgery between models."""
