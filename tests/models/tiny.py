"""Models small enough to compile in a second, with parameters that are nowhere zero or one."""

import pathlib
from typing import Any

import jax
import numpy as np

from vit_jax.checkpoints import load, save, surgery
from vit_jax.models import zoo
from vit_jax.models.preprocessing import Preprocessing

SIZES: dict[str, Any] = {
    "image_size": (16, 24),
    "patch_size": (8, 8),
    "width": 32,
    "depth": 3,
    "mlp_dim": 48,
    "num_heads": 4,
    "num_classes": 5,
}


def options(**changes: Any) -> Any:
    """Options of the task model that the fields describe."""
    return zoo.of_parts(**(SIZES | changes))


def params(options: zoo.Options, *, seed: int = 0) -> dict[str, np.ndarray]:
    """Random parameters by path, drawn without compiling anything."""
    rng = np.random.default_rng(seed)
    shapes = surgery.shapes(options)
    # The order does not depend on which model wraps the encoder: tests depend on the numbers.
    paths = sorted(shapes, key=lambda path: path.removeprefix("encoder/").split("/"))
    return {path: _draw(rng, path, shapes[path]) for path in paths}


def model(*, seed: int = 0, **changes: Any) -> Any:
    chosen = options(**changes)
    return load.assemble(chosen, params(chosen, seed=seed))


def saved(folder: pathlib.Path, **changes: Any) -> pathlib.Path:
    """A model in a folder, whose images are resized to its size without a margin."""
    made = model(**changes)
    made.preprocessing = Preprocessing(image_size=changes["image_size"], crop_pct=1.0)
    save.save(made, folder / "model")
    return folder / "model"


def images(batch: int = 2, *, size: tuple[int, int] = (16, 24)) -> jax.Array:
    values = np.random.default_rng(7).uniform(-1, 1, (batch, *size, 3))
    return jax.numpy.asarray(values, np.float32)


def _draw(rng: np.random.Generator, path: str, shape: tuple[int, ...]) -> np.ndarray:
    values = rng.normal(size=shape)
    if path.endswith("scale"):
        values = 1 + 0.1 * values
    elif path.endswith("kernel"):
        layers = shape[1:] if path.startswith("encoder/blocks/") else shape
        fan_in = layers[0] if "qkv" in path else np.prod(layers[:-1])
        values = values / np.sqrt(fan_in)
    elif path.endswith("variance"):
        values = 1 + np.abs(values)
    elif not path.endswith("position"):
        values = 0.3 * values
    return values.astype(np.float32)
