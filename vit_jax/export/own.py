"""A model as safetensors with the names of this package, which `load` reads back bit for bit."""

import pathlib

from vit_jax.checkpoints import card as model_card
from vit_jax.checkpoints import exported, kernels, run_folder
from vit_jax.checkpoints.load import load
from vit_jax.checkpoints.save import params_of
from vit_jax.errors import RunFailed
from vit_jax.export import weights
from vit_jax.models import zoo

STORED = ("float32", "int8")


def write(
    folder: pathlib.Path, model: zoo.Model, class_names: tuple[str, ...], *, stored: kernels.Kind
) -> None:
    """Writes model.json and the parameters, with kernels stored in float32 or int8.

    Raises RunFailed unless they are read back equal in every bit.
    """
    assert model.preprocessing is not None, "the model was not loaded"
    card = model_card.Card(
        options=model.options,
        class_names=class_names,
        preprocessing=model.preprocessing,
        resize=model.resize_methods,
        cross_entropy=model.cross_entropy,
    )
    run_folder.write_card(folder, card)
    arrays = kernels.stored(params_of(model), kind=stored)
    weights.write(folder / exported.WEIGHTS, arrays)
    params, again = kernels.restored(arrays), params_of(load(folder))
    if differing := [name for name in params if params[name].tobytes() != again[name].tobytes()]:
        raise RunFailed(f"{differing[0]} is not read back equal: nothing was written")
