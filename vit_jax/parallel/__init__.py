"""Parallelism: the mesh, the rules from parameter paths to mesh axes, and several processes."""
