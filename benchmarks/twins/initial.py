"""Initial values of a model, drawn by NumPy, so that every machine has the same."""

from typing import Any

import numpy as np

from vit_jax.checkpoints import surgery
from vit_jax.models import positions
from vit_jax.models.zoo import Options

Params = dict[str, np.ndarray]  # by path


def initial(options: Options, *, seed: int = 0) -> Params:
    """Random values of every parameter, but the fixed positions of a masked autoencoder."""
    rng = np.random.default_rng(seed)
    shapes = surgery.shapes(options)
    params = {path: _draw(rng, path, shapes[path]) for path in sorted(shapes)}
    if getattr(options, "fixed_position", False):
        params |= _fixed_tables(options)
    return params


def _draw(rng: np.random.Generator, path: str, shape: tuple[int, ...]) -> np.ndarray:
    values = rng.normal(size=shape)
    if path.endswith("kernel"):
        one = shape[1:] if "blocks/" in path else shape
        fan_in = one[0] if "qkv" in path else np.prod(one[:-1])
        values /= np.sqrt(fan_in)
    else:
        values *= 0.02
    return np.asarray(values + path.endswith("/scale"), np.float32)


def _fixed_tables(options: Any) -> Params:
    """The positions of a masked autoencoder, which do not train."""
    tables = {"encoder/position": options.width, "decoder/position": options.decoder.width}
    prefix = options.prefix_tokens
    return {
        path: np.asarray(positions.fixed_table(options.grid, width, prefix=prefix), np.float32)
        for path, width in tables.items()
    }
