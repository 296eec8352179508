"""Training twins: the same run in this project and in the code it follows, step by step."""
