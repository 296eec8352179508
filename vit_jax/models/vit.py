"""The names of the Vision Transformer classifier, in one place."""

from vit_jax.models.classifier import Classifier as ViT
from vit_jax.models.classifier import ViTOptions
from vit_jax.models.stack import Intermediates

__all__ = ["Intermediates", "ViT", "ViTOptions"]
