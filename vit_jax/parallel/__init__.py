"""Where arrays live: the mesh, the rules from parameter paths to axes, several processes."""
