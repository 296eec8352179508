"""Starts one run on many processes or machines; run from a clone, not installed."""
