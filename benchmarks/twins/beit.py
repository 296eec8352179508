"""BEiT: visual tokens of hidden patches, given to both sides."""

import pathlib
from typing import Any

import ml_collections

from benchmarks.twins import draws
from benchmarks.twins.contract import Twin, sizes
from benchmarks.twins.initial import initial
from vit_jax.checkpoints import save
from vit_jax.checkpoints.load import Checkpoint
from vit_jax.models import dvae
from vit_jax.models.preprocessing import Preprocessing
from vit_jax.training.design import Design

_VOCABULARY = 64


def _recipe(config: ml_collections.ConfigDict) -> None:
    config.model.name = "BEiT-pretrain-B/16"
    config.model.patch_size = (4, 4)
    config.model.layer_scale = 0.1
    config.model.drop_path = 0.1
    config.model.mim_classes = _VOCABULARY
    config.objective.name = "beit"
    config.objective.hidden = 20
    config.objective.smallest_block = 4
    config.optimizer.learning_rate = 1.5e-3
    config.optimizer.b2 = 0.98
    config.optimizer.weight_decay = 0.05
    # The original decays the mask token and the table of relative biases too.
    config.optimizer.decay_mask = ("kernel$", "mask$", "relative_bias$")
    config.optimizer.clip_norm = 3.0


def _tokenizer(config: ml_collections.ConfigDict, folder: str) -> None:
    """Writes a discrete VAE with random weights."""
    options = dvae.DVAEOptions(
        image_size=config.image_size,
        hidden=16,
        groups=3,
        blocks=1,
        vocabulary=_VOCABULARY,
        code_width=8,
        reconstructs=False,
    )
    made = Checkpoint(
        options=options,
        params=initial(options),
        preprocessing=Preprocessing(image_size=options.image_size, mean=dvae.MEAN, std=dvae.STD),
    )
    path = pathlib.Path(folder, "tokenizer")
    save.write(made, path)
    config.objective.tokenizer = str(path)


def _settings(plan: Design) -> dict[str, Any]:
    options: Any = plan.options
    return sizes(plan) | {"vocabulary": _VOCABULARY, "layer_scale": options.layer_scale}


PRETRAINING = Twin(
    about="masked image modelling with given tokens, shared relative bias, LayerScale, drop-path",
    recipe=_recipe,
    peer="unilm_beit",
    needs="clone github.com/microsoft/unilm there, and install torch and timm",
    libraries=("torch", "timm"),
    checkout="unilm/beit",
    layout="beit",
    settings=_settings,
    draws=draws.both(draws.tokens, draws.kept_branches),
    prepare=_tokenizer,
)
