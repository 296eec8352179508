"""What a layout is: how the files of one family of models are read and written."""

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
    """A layout of models of some types. What it does not say has the default that is told here.

    Reading goes `recognises`, `canonical`, `infer`, `entries`, `preprocessing`, in this order;
    writing `numerics`, `entries`, `constants`, `beside`. None tells how a model is run (dtype,
    remat, ...), which no file knows. All raise ValueError where a file or a model does not fit.
    """

    models: tuple[type[Options], ...]  # the types of options that it can hold
    # Whether the arrays are of this layout, by their names, which another layout may share.
    recognises: Callable[[Found], bool]
    # The model of canonical arrays.
    infer: Callable[[Found, Hints], Any]
    # Which array is which parameter of a model, both ways.
    entries: Callable[[Any], list[Entry]]
    # What images a model expects, as the files beside it tell, else as released models of its kind.
    preprocessing: Callable[[Any, Hints], Preprocessing]
    # The arrays of a model alone, in one spelling. By itself: the arrays as they are.
    canonical: Callable[[Found, Hints], Arrays] = _same
    # How a model of the layout is resized. By itself: as vit_jax's.
    resize: Callable[[Any], Methods] = lambda options: Methods()
    # The fields of a model that readers fix, because files do not tell them. By itself: none.
    numerics: Callable[[Any], dict[str, Any]] = lambda options: {}
    # What is written besides parameters, such as fixed positions. By itself: nothing.
    constants: Callable[[Any], Arrays] = lambda options: {}
    # In words, which arrays are left out. By itself: none.
    notes: Callable[[Found], tuple[str, ...]] = lambda arrays: ()
    # In words, what is taken for granted where no file beside tells it. By itself: nothing.
    assumptions: Callable[[Any, Preprocessing, Hints], tuple[str, ...]] = _nothing_assumed
    # The JSON files beside the weights, config.json among them. By itself: an empty one.
    beside: Callable[[Any, Preprocessing, tuple[str, ...]], Beside] = _empty_config
    # The fields that `beside` tells and the arrays do not, which other readers may not look at.
    told_beside: Callable[[Any], tuple[str, ...]] = lambda options: ()
    # The same model as the code that the layout is from builds it (PyTorch), to compare with.
    original: Callable[[Any], Any] | None = None
    # How its files end. `folders`: whether it is written as a folder of several: "never", "always",
    # or where the path has no ending ("also").
    formats: tuple[str, ...] = (".npz",)
    folders: str = "never"
    torch_key: str = ""  # under which a .pth keeps its arrays
    read_only: bool = False

    def as_written(self, options: Options) -> Any:
        """The model that readers of the files make of it."""
        return dataclasses.replace(options, **self.numerics(options))
