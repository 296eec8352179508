"""vit_jax: the Vision Transformer family in JAX and Flax."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vit_jax.checkpoints.load import load
    from vit_jax.checkpoints.save import save
    from vit_jax.images import read_images
    from vit_jax.models.zoo import create
    from vit_jax.training.python import evaluate, train

__version__ = "0.1.0"
__all__ = ["create", "evaluate", "load", "read_images", "save", "train"]

_MODULES = {
    "create": "vit_jax.models.zoo",
    "evaluate": "vit_jax.training.python",
    "load": "vit_jax.checkpoints.load",
    "read_images": "vit_jax.images",
    "save": "vit_jax.checkpoints.save",
    "train": "vit_jax.training.python",
}


def __getattr__(name: str) -> Any:
    """Imports a function when it is first used.

    Importing JAX takes seconds. If it is interrupted, a command must still end with one line.
    """
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = found = getattr(importlib.import_module(_MODULES[name]), name)
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
