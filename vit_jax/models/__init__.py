"""The Vision Transformer family as Flax NNX modules: parameters and nothing else."""
