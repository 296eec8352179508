"""vit_jax: the Vision Transformer family in JAX and Flax."""

from vit_jax.checkpoints.load import load
from vit_jax.checkpoints.save import save
from vit_jax.images import read_images
from vit_jax.models.zoo import create

__version__ = "0.1.0"
__all__ = ["create", "load", "read_images", "save"]
