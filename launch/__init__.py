"""Starts one run on many processes or machines. Use it in a clone: it is not installed."""
