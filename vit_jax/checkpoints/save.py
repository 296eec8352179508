"""Saves a model as a file of any layout or as the folder of a run, as a whole or not at all."""

import dataclasses
import json
import os
import pathlib
import warnings
from collections.abc import Collection, Mapping
from typing import Any

import jax
import numpy as np
from flax import nnx, traverse_util
from safetensors import numpy as safetensors_numpy

from vit_jax.checkpoints import beside, layouts, run_folder, store, surgery, torch_file
from vit_jax.checkpoints.layouts import Layout
from vit_jax.checkpoints.layouts.hints import Hints
from vit_jax.checkpoints.load import Checkpoint
from vit_jax.models import zoo
from vit_jax.models.model import TrainedWith
from vit_jax.models.preprocessing import Preprocessing
from vit_jax.schema import build
from vit_jax.text import printable
from vit_jax.workdir import place

_TORCH = (".pth", ".pt", ".bin")
_SUFFIXES = (".npz", ".safetensors", *_TORCH)


def save(model: zoo.Model, path: str | os.PathLike[str], *, layout: str | None = None) -> None:
    """Writes a `model` to a path from which `load` reads it back.

    `layout` is one of `layouts.LAYOUTS`; `path` ends in .npz, .safetensors or .pth, or is a folder
    (hf). Without a layout, a .npz gets the vit_jax layout and a folder becomes a run. Warns where
    other readers of the layout compute something else than the model, for instance another GELU.
    Raises ValueError, and writes nothing, where the layout cannot hold the model or the path does
    not fit the layout.
    """
    checkpoint = Checkpoint(
        options=model.options,
        params=params_of(model),
        preprocessing=(
            model.preprocessing
            or Preprocessing(image_size=model.options.image_size).for_channels(
                model.options.channels
            )
        ),
        class_names=model.class_names,
        resize=model.resize_methods,
        cross_entropy=build(TrainedWith, model.cross_entropy, "the model's cross_entropy"),
    )
    for change in write(checkpoint, path, layout=layout or ""):
        warnings.warn(printable(f"{path}: {change}"), stacklevel=2)


def params_of(model: zoo.Model) -> dict[str, np.ndarray]:
    """The parameters of a model by path, float32."""
    flat = traverse_util.flatten_dict(nnx.to_pure_dict(nnx.state(model)), sep="/")
    return {path: np.asarray(array, np.float32) for path, array in flat.items()}


def write(
    checkpoint: Checkpoint, path: str | os.PathLike[str], *, layout: str = "", origin: str = ""
) -> tuple[str, ...]:
    """As `save`; returns messages on what other readers of the layout compute differently.

    `origin` is the source that the config of a new run names.
    """
    if place.is_bucket(path):
        with place.writing(path) as here:
            return write(checkpoint, here, layout=layout, origin=origin)
    path = pathlib.Path(path)
    if not layout and path.suffix in _SUFFIXES[1:]:
        known = ", ".join(layouts.LAYOUTS)
        raise ValueError(f"{path}: a {path.suffix} file needs a layout: give one of {known}")
    if not layout and path.suffix != ".npz":
        _write_run(checkpoint, path, origin)
        return ()
    layout = layout or "vit_jax"
    written = layouts.writer(checkpoint.options, layout)
    options = written.as_written(checkpoint.options)
    folder = written.folders == "always" or written.folders == "also" and not path.suffix
    _check_path(path, layout, written, folder)
    params = surgery.with_rows(checkpoint.params, source=checkpoint.options, target=options)
    arrays = layouts.table.write(written.entries(options), params) | written.constants(options)
    key = written.torch_key
    weights = path / "model.safetensors" if folder else path
    texts = _beside(checkpoint, written, arrays, weights)
    if not folder:
        config = beside.config_path(path)
        with place.replacing(path) as temporary, place.replacing(config) as temporary_config:
            temporary_config.write_text(texts["config.json"])
            _write_arrays(temporary, arrays, path.suffix, key)
    else:
        with place.replacing(path) as temporary:
            temporary.mkdir()
            for name, text in texts.items():
                (temporary / name).write_text(text)
            _write_arrays(temporary / weights.name, arrays, ".safetensors", key)
    in_config = written.config_only(checkpoint.options)
    notes = _differences(checkpoint.options, options, layout, in_config=in_config)
    only = f"only vit_jax reads this file right: the original code of the {layout} layout has no"
    return notes + tuple(f"{only} {part}" for part in written.lacks(checkpoint.options))


def _beside(
    checkpoint: Checkpoint,
    written: Layout,
    arrays: Mapping[str, np.ndarray],
    weights: pathlib.Path,
) -> dict[str, str]:
    """The texts of the JSON files beside the weights, by file name.

    The arrays and files are interpreted as on loading; fields that would come out wrong are added
    to config.json in our own entry.
    """
    source, expects, names = checkpoint.options, checkpoint.preprocessing, checkpoint.class_names
    with_rows = source.with_rows_of(written.as_written(source))  # as in the arrays
    contents = written.beside(with_rows, expects, names)
    preprocessor = contents.get("preprocessor_config.json", {})
    hints = Hints(config=contents["config.json"], preprocessor=preprocessor)
    empty = {name: np.broadcast_to(np.float32(0), a.shape) for name, a in arrays.items()}
    found = written.infer(written.canonical(empty, hints), hints)
    read = written.preprocessing(source, hints).for_channels(source.channels)
    entry = beside.Exact(
        file=weights.name,
        layout=layouts.name(written),
        options=beside.options_differences(found, source),
        preprocessing=beside.differences(read, expects),
        # Readers assume the softmax, and earlier versions know no other.
        cross_entropy="" if checkpoint.cross_entropy == "softmax" else checkpoint.cross_entropy,
    )
    contents["config.json"] = beside.with_exact(contents["config.json"], entry)
    return {name: json.dumps(content, indent=2) + "\n" for name, content in contents.items()}


def _differences(
    options: Any, read: Any, layout: str, *, in_config: Collection[str] = (), prefix: str = ""
) -> tuple[str, ...]:
    """Messages on the fields that readers of the arrays assume differently.

    Readers that use config.json know the fields `in_config`.
    """
    changes: tuple[str, ...] = ()
    for name, ours in vars(options).items():
        theirs = getattr(read, name)
        if name == "norm_at" and options.pool == read.pool == "token":
            continue  # the norm of one token is the same before and after it is selected
        if dataclasses.is_dataclass(ours):
            changes += _differences(ours, theirs, layout, prefix=f"{prefix}{name} ")
        elif ours != theirs and name != "class_position":  # it changes no logits
            change = f"readers of the {layout} layout assume {prefix}{name} {theirs}"
            unless = ", unless they read its config.json" if name in in_config else ""
            changes += (f"{change}, the model has {ours}{unless}",)
    return changes


def _check_path(path: pathlib.Path, layout: str, written: Layout, folder: bool) -> None:
    if folder:
        if path.suffix in _SUFFIXES:
            raise ValueError(
                f"{path}: the {layout} layout is a folder: give a name without {path.suffix}"
            )
        return
    if path.suffix not in written.formats:
        known = " or ".join(written.formats)
        raise ValueError(f"{path}: files of the {layout} layout end in {known}")
    if path.is_dir():
        raise ValueError(f"{path} is a folder, but the {layout} layout is a file")


def _write_arrays(
    path: pathlib.Path, arrays: Mapping[str, np.ndarray], suffix: str, key: str
) -> None:
    arrays = {name: np.ascontiguousarray(a).reshape(a.shape) for name, a in arrays.items()}
    if suffix == ".npz":
        with path.open("wb") as file:  # given a path, savez may add a suffix
            np.savez(file, allow_pickle=False, **arrays)
    elif suffix in _TORCH:
        torch_file.write(path, arrays, key=key)
    else:
        path.touch()
        mode = path.stat().st_mode  # the user's default mode: the library makes private files
        safetensors_numpy.save_file(arrays, path, metadata={"format": "pt"})
        path.chmod(mode)


def _write_run(checkpoint: Checkpoint, path: pathlib.Path, origin: str) -> None:
    """Writes a run at step 0, for `init_from` and `evaluate`."""
    expects = checkpoint.preprocessing
    config = {
        "format": 2,
        "init_from": origin or "saved",
        "image_size": checkpoint.options.image_size,
        "data": {
            "mean": expects.mean,
            "std": expects.std,
            "crop_pct": expects.crop_pct,
            "eval_interpolation": expects.interpolation,
            "eval_fit": expects.fit,
        },
    }
    card = run_folder.Card(
        options=checkpoint.options,
        class_names=checkpoint.class_names,
        preprocessing=expects,
        resize=checkpoint.resize,
        cross_entropy=checkpoint.cross_entropy,
    )
    params = traverse_util.unflatten_dict(
        {name: jax.numpy.asarray(array) for name, array in checkpoint.params.items()}, sep="/"
    )
    with place.replacing(path) as temporary:
        run_folder.write_run(temporary, config, card)
        with store.Store(temporary, store.CheckpointConfig()) as saved:
            saved.save(0, {"params": params}, {})
            saved.wait()
