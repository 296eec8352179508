"""A table of entries maps the arrays of a file to parameters, and back.

An entry describes one layer. If its names contain `{i}`, the number of the layer, then the
parameter has a leading layer axis. `write` is the inverse of `read`.
"""

import dataclasses
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from vit_jax.models.classifier import ViTOptions
from vit_jax.models.masked_autoencoder import MaskedAutoencoderOptions
from vit_jax.models.masked_image_model import MaskedImageModelOptions
from vit_jax.models.zoo import FREE_FIELDS, Options

Arrays = dict[str, np.ndarray]
Shapes = Mapping[str, tuple[int, ...]]
VITS = (ViTOptions, MaskedAutoencoderOptions, MaskedImageModelOptions)  # options of all ViTs
LISTED = 20  # misfits in a message
MOST_LAYERS = 1000  # a file may name as many layers, even if it has fewer arrays


@dataclasses.dataclass(frozen=True)
class Entry:
    """The parameter at `path` is `join(arrays of names)`; `split` is the inverse. For one layer."""

    path: str
    names: tuple[str, ...]
    join: Callable[..., np.ndarray] = lambda array: array
    split: Callable[[np.ndarray], Sequence[np.ndarray]] = lambda array: (array,)


def read(entries: Sequence[Entry], arrays: Mapping[str, np.ndarray], expected: Shapes) -> Arrays:
    """Parameters by path, from a file's arrays. `expected` has the shape of every parameter.

    Raises ValueError that lists the arrays that are missing, unexpected or have a wrong shape, and
    parameters that are no floating-point numbers (quantised weights).
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
            if whole := _not_floating(names, parts):
                misfits += whole
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


def _not_floating(names: Sequence[str], parts: Sequence[np.ndarray]) -> list[str]:
    return [
        f"{name} holds {part.dtype}, but parameters are floating-point numbers"
        for name, part in zip(names, parts, strict=True)
        if part.dtype.kind != "f"
    ]


def check_depth(options: Any, *, number: int) -> None:
    """Raises ValueError where a model has far more layers than its file has arrays (`number`).

    The depth comes from the numbers in names. A list of a million missing layers would fill the
    memory.
    """
    if _layer_count(options) > max(number, MOST_LAYERS):
        raise ValueError(
            f"its arrays are named for {_layer_count(options)} layers, but there are only {number}"
        )


def _layer_count(options: Any) -> int:
    count = 0
    for name, value in vars(options).items():
        if dataclasses.is_dataclass(value):
            count += _layer_count(value)
        elif name in ("depth", "depths", "num_layers"):
            count += sum(value) if isinstance(value, tuple) else value
    return count


def write(entries: Sequence[Entry], params: Mapping[str, np.ndarray]) -> Arrays:
    """A file's arrays by name, from parameters by path."""
    arrays: Arrays = {}
    shapes = {path: array.shape for path, array in params.items()}
    for entry in entries:
        for i, names in enumerate(_layers(entry, shapes)):
            array = np.asarray(params[entry.path])
            parts = entry.split(array[i] if _stacked(entry) else array)
            arrays.update(zip(names, parts, strict=True))
    return arrays


def pair(path: str, name: str, *leaves: str) -> list[Entry]:
    """Entries `path`/leaf <- `name`/leaf, for every leaf."""
    return [Entry(f"{path}/{leaf}", (f"{name}/{leaf}",)) for leaf in leaves]


def stacked(axis: int) -> tuple[Callable[..., np.ndarray], Callable[[np.ndarray], Sequence]]:
    """`join` and `split` of an entry whose arrays are stacked on a new axis."""
    return (
        lambda *parts: np.stack(parts, axis=axis),
        lambda array: [np.take(array, i, axis=axis) for i in range(array.shape[axis])],
    )


def check_holds(options: Options, layout: str, *, holds: Collection[str], **fixed: Any) -> None:
    """Raises ValueError where a layout cannot hold a model.

    `holds` are the fields of the options that follow from the layout's arrays, `fixed` the fields
    with only one possible value. All others must have their defaults, except fields of a run.
    """
    options = options.plain()
    free = {*holds, "drop_edges", *FREE_FIELDS}
    expected: dict[str, Any] = {f.name: f.default for f in dataclasses.fields(options)}
    expected |= {"decoder": None, "mim_classes": 0} | fixed
    wrong = [f"{k}={v!r}" for k, v in vars(options).items() if k not in free and v != expected[k]]
    if wrong:
        raise ValueError(f"the {layout} layout cannot hold {', '.join(wrong)}")


def _stacked(entry: Entry) -> bool:
    return "{i}" in entry.names[0]


def _layers(entry: Entry, shapes: Shapes) -> Iterator[list[str]]:
    depth = shapes[entry.path][0] if _stacked(entry) else 1
    for i in range(depth):
        yield [name.replace("{i}", str(i)) for name in entry.names]
