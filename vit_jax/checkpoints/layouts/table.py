"""A layout as a table: which arrays of a file make which parameter, and back.

An entry speaks about one layer; `{i}` in its names is the number of the layer, and the parameter
has a leading layer axis then. `read` and `write` are inverse to each other.
"""

import dataclasses
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from vit_jax.models.classifier import ViTOptions
from vit_jax.models.masked_autoencoder import MaskedAutoencoderOptions
from vit_jax.models.masked_image_model import MaskedImageModelOptions
from vit_jax.models.zoo import RUN_FIELDS, Options

Arrays = dict[str, np.ndarray]
Shapes = Mapping[str, tuple[int, ...]]
VITS = (ViTOptions, MaskedAutoencoderOptions, MaskedImageModelOptions)  # of timm and others
LISTED = 20  # misfits in a message
MOST_LAYERS = 1000  # that are believed of a file that holds fewer arrays


@dataclasses.dataclass(frozen=True)
class Entry:
    """`path` is made of `names` by `join`; `split` is its inverse (both: one layer)."""

    path: str
    names: tuple[str, ...]
    join: Callable[..., np.ndarray] = lambda array: array
    split: Callable[[np.ndarray], Sequence[np.ndarray]] = lambda array: (array,)


def read(entries: Sequence[Entry], arrays: Mapping[str, np.ndarray], expected: Shapes) -> Arrays:
    """Parameters by path, from a file's arrays. `expected` holds the shapes of the model.

    Raises ValueError that lists the misfits: arrays missing, left over, and misshapen.
    """
    left, params, misfits = dict(arrays), {}, []
    for entry in entries:
        layers = []
        for names in _layers(entry, expected):
            missing = [name for name in names if name not in left]
            misfits += [f"missing {name}" for name in missing]
            parts = [left.pop(name) for name in names if name in left]
            if missing:
                continue
            shape = expected[entry.path][1:] if _stacked(entry) else expected[entry.path]
            try:
                joined = entry.join(*parts)
            except (ValueError, IndexError):
                joined = None
            if joined is None or joined.shape != shape:
                wanted = entry.split(np.broadcast_to(np.float32(0), shape))
                misfits += [
                    f"{name} has shape {part.shape}, expected {want.shape}"
                    for name, part, want in zip(names, parts, wanted, strict=True)
                    if joined is None or part.shape != want.shape
                ]
                continue
            layers.append(joined)
        if layers:
            params[entry.path] = np.stack(layers) if _stacked(entry) else layers[0]
    misfits += [f"unexpected {name} {array.shape}" for name, array in sorted(left.items())]
    if misfits:
        more = f"; and {len(misfits) - LISTED} more" if len(misfits) > LISTED else ""
        raise ValueError(f"{len(misfits)} misfits: {'; '.join(misfits[:LISTED])}{more}")
    return params


def check_depth(options: Any, *, number: int) -> None:
    """Raises ValueError where a model has far more layers than a file of `number` arrays.

    Names count them: a layer that is missing is a misfit, of a million the list fills the memory.
    """
    if _layer_count(options) > max(number, MOST_LAYERS):
        raise ValueError(f"its names count {_layer_count(options)} layers, of {number} arrays")


def _layer_count(options: Any) -> int:
    count = 0
    for name, value in vars(options).items():
        if dataclasses.is_dataclass(value):
            count += _layer_count(value)
        elif name in ("depth", "depths", "num_layers"):
            count += sum(value) if isinstance(value, tuple) else value
    return count


def write(entries: Sequence[Entry], params: Mapping[str, np.ndarray]) -> Arrays:
    """A file's arrays, from parameters by path."""
    arrays: Arrays = {}
    shapes = {path: array.shape for path, array in params.items()}
    for entry in entries:
        for i, names in enumerate(_layers(entry, shapes)):
            array = np.asarray(params[entry.path])
            parts = entry.split(array[i] if _stacked(entry) else array)
            arrays.update(zip(names, parts, strict=True))
    return arrays


def pair(path: str, name: str, *leaves: str) -> list[Entry]:
    """Entries of leaves that have the same names on both sides, under `path` and `name`."""
    return [Entry(f"{path}/{leaf}", (f"{name}/{leaf}",)) for leaf in leaves]


def stacked(axis: int) -> tuple[Callable[..., np.ndarray], Callable[[np.ndarray], Sequence]]:
    """`join` and `split` of an entry whose arrays are stacked on a new axis."""
    return (
        lambda *parts: np.stack(parts, axis=axis),
        lambda array: [np.take(array, i, axis=axis) for i in range(array.shape[axis])],
    )


def check_holds(options: Options, layout: str, *, holds: Collection[str], **fixed: Any) -> None:
    """Raises ValueError where a model needs what a layout cannot say.

    `holds` are the fields of the options that the layout's arrays tell, `fixed` those that have
    one value in it; all others must have their defaults, but for those of training and computing.
    """
    options = options.plain()
    free = {*holds, "drop_edges", *RUN_FIELDS}
    expected: dict[str, Any] = {f.name: f.default for f in dataclasses.fields(options)}
    expected |= {"decoder": None, "mim_classes": 0} | fixed
    wrong = [f"{k}={v!r}" for k, v in vars(options).items() if k not in free and v != expected[k]]
    if wrong:
        raise ValueError(f"the {layout} layout has no place for {', '.join(wrong)}")


def _stacked(entry: Entry) -> bool:
    return "{i}" in entry.names[0]


def _layers(entry: Entry, shapes: Shapes) -> Iterator[list[str]]:
    depth = shapes[entry.path][0] if _stacked(entry) else 1
    for i in range(depth):
        yield [name.replace("{i}", str(i)) for name in entry.names]
