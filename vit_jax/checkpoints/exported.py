"""The folder of a model that was exported as safetensors: model.json, and its parameters by path.

It is read like a run with one checkpoint, but has no config and cannot be trained on as it is.
"""

import os
from collections.abc import Mapping

import numpy as np

from vit_jax.checkpoints import files, kernels, run_folder, s3, surgery
from vit_jax.models import zoo
from vit_jax.models.model import TrainedWith
from vit_jax.text import few
from vit_jax.workdir import place

WEIGHTS = "weights.safetensors"


def is_exported(path: str | os.PathLike[str]) -> bool:
    """Whether the folder has its parameters in a file, instead of checkpoints."""
    folder = s3.folder(path)
    return run_folder.exists(folder / WEIGHTS) and not run_folder.exists(folder / "checkpoints")


def is_trained(path: str | os.PathLike[str]) -> bool:
    """Whether a folder is that of a run with its config, not one that was exported."""
    return run_folder.is_run(path) and not is_exported(path)


def read(path: str | os.PathLike[str], options: zoo.Options) -> dict[str, np.ndarray]:
    """The parameters by path, float32; kernels may be stored in int8.

    Raises ValueError unless they are those of a model of `options`.
    """
    with place.reading(path) as folder:
        found = files.read_arrays(folder / WEIGHTS)
        kept = {name: np.asarray(array) for name, array in found.items()}
    arrays, shapes = kernels.restored(kept), surgery.shapes(options)
    wrong = [name for name, shape in shapes.items() if _shape(arrays, name) != shape]
    wrong += [name for name in arrays if name not in shapes]
    if wrong := list(dict.fromkeys(wrong + kernels.without_scales(kept))):
        raise ValueError(f"{path}/{WEIGHTS} does not fit model.json: see {few(wrong)}")
    return arrays


def cross_entropy(path: str | os.PathLike[str]) -> TrainedWith:
    """What the model was trained with, which earlier versions wrote into card.json alone.

    "" unless it is the sigmoid: the softmax is also written for a model of which nothing is known.
    """
    try:
        card = run_folder.read_json(path, "card.json")
    except ValueError as error:
        run_folder.warn_of_softmax(path, str(error))
        return ""
    said = isinstance(card, Mapping) and card.get("activation") == "sigmoid"
    return "sigmoid" if said else ""


def _shape(arrays: Mapping[str, np.ndarray], name: str) -> tuple[int, ...] | None:
    return arrays[name].shape if name in arrays else None
