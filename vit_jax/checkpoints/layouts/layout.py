"""The type of a layout: how the files of one family of models are read and written."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from vit_jax.checkpoints.layouts.hints import Hints
from vit_jax.checkpoints.layouts.table import Arrays, Entry
from vit_jax.models.interpolation import Methods
from vit_jax.models.preprocessing import Preprocessing
from vit_jax.models.zoo import Options

Found = Mapping[str, np.ndarray]  # the arrays of a file, by name
Beside = dict[str, dict[str, Any]]  # the JSON files beside weights, by name


def _same(arrays: Found, hints: Hints) -> Arrays:
    return dict(arrays)


def _nothing_assumed(options: Options, expects: Preprocessing, hints: Hints) -> tuple[str, ...]:
    return ()


def _empty_config(options: Options, expects: Preprocessing, class_names: tuple[str, ...]) -> Beside:
    return {"config.json": {}}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Layout:
    """The functions that read and write the files of one family of models.

    Reading calls `recognises`, `canonical`, `infer`, `entries`, `preprocessing`, in this order;
    writing calls `numerics`, `entries`, `constants`, `beside`. None of them sets how a model is run
    (dtype, remat, ...), because no file contains that. All raise ValueError where a file or a model
    does not fit.
    """

    models: tuple[type[Options], ...]  # the types of options that it can hold
    # Whether the names of the arrays are those of this layout. Layouts may share names.
    recognises: Callable[[Found], bool]
    # The options of the model, from canonical arrays.
    infer: Callable[[Found, Hints], Any]
    # The table that maps arrays to parameters of a model and back.
    entries: Callable[[Any], list[Entry]]
    # The images that a model expects: from the files beside it, or as for released models.
    preprocessing: Callable[[Any, Hints], Preprocessing]
    # The model's arrays with unified names, without other arrays. Default: the arrays unchanged.
    canonical: Callable[[Found, Hints], Arrays] = _same
    # How the original code resizes parameters. Default: as vit_jax does.
    resize: Callable[[Any], Methods] = lambda options: Methods()
    # Fields that every reader of the files assumes, because the files lack them. Default: none.
    numerics: Callable[[Any], dict[str, Any]] = lambda options: {}
    # Arrays to write besides the parameters, such as fixed positions. Default: none.
    constants: Callable[[Any], Arrays] = lambda options: {}
    # Messages on arrays that are left out. Default: none.
    notes: Callable[[Found], tuple[str, ...]] = lambda arrays: ()
    # Messages on values that are assumed because no file has them. Default: none.
    assumptions: Callable[[Any, Preprocessing, Hints], tuple[str, ...]] = _nothing_assumed
    # The JSON files to write beside the weights. Default: a config.json without fields.
    beside: Callable[[Any, Preprocessing, tuple[str, ...]], Beside] = _empty_config
    # Fields that only config.json has: other readers may ignore them. Default: none.
    config_only: Callable[[Any], tuple[str, ...]] = lambda options: ()
    # Parts that the original code lacks, although there are names for them. Default: none.
    lacks: Callable[[Any], tuple[str, ...]] = lambda options: ()
    # Builds the model of the original code (PyTorch), to compare with. None: not available.
    original: Callable[[Any], Any] | None = None
    # The suffixes of its files, and whether it is written as a folder: "never", "always", or "also"
    # (if the path has no suffix).
    formats: tuple[str, ...] = (".npz",)
    folders: str = "never"
    torch_key: str = ""  # the key of the arrays in a .pth
    read_only: bool = False  # whether models cannot be written in it

    def as_written(self, options: Options) -> Any:
        """The options that a reader of the written arrays gets."""
        return dataclasses.replace(options, **self.numerics(options))


def present(parts: Mapping[str, Any]) -> tuple[str, ...]:
    """The names of the parts whose value is true."""
    return tuple(name for name, there in parts.items() if there)
