"""BEiT: visual tokens of hidden patches, given to both sides."""

import pathlib
from typing import Any

import ml_collections
import numpy as np

from benchmarks.twins import draws
from benchmarks.twins.contract import Twin, sizes
from benchmarks.twins.initial import Params, initial
from vit_jax.checkpoints import save
from vit_jax.checkpoints.load import Checkpoint, assemble
from vit_jax.config import resolve
from vit_jax.data import opening, preprocess
from vit_jax.data.augment import normalize
from vit_jax.models import dvae
from vit_jax.models.preprocessing import Preprocessing
from vit_jax.training.design import Design

_VOCABULARY = 64
_OUTPUT = "encoder/output/"  # the last layer of the tokenizer
_IMAGES = 256  # training images that decide its values
# With this seed, the two largest logits of a hidden patch differ by at least 2.4e-5 in the steps
# that tests/twins repeats. So the rounding of another machine (at most 6.5e-6) changes no token.
_SEED = 2


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
    """Writes a discrete VAE with random weights, whose tokens depend on the image all the same."""
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
        params=_standardized(initial(options, seed=_SEED), options, _images(config)),
        preprocessing=Preprocessing(image_size=options.image_size, mean=dvae.MEAN, std=dvae.STD),
    )
    path = pathlib.Path(folder, "tokenizer")
    save.write(made, path)
    config.objective.tokenizer = str(path)


def _images(config: ml_collections.ConfigDict) -> np.ndarray:
    """Training images, uint8 (_IMAGES, H, W, C), at equal distances in their source."""
    data = resolve(config).data
    source = opening.open_train(data)
    transform = preprocess.eval_transform(data, size=config.image_size)
    indices = np.linspace(0, len(source) - 1, _IMAGES).astype(int)
    return np.stack([transform(transform.decode(source.read(i).data)) for i in indices])


def _standardized(params: Params, options: dvae.DVAEOptions, images: np.ndarray) -> Params:
    """The parameters with another last layer.

    With random values, one token has the largest logit for nearly all patches. Here each logit has
    mean 0 and standard deviation 1 over the patches of `images`, uint8 (B, H, W, C).
    """
    model = assemble(options, params)
    logits = np.asarray(model(normalize(images, mean=dvae.MEAN, std=dvae.STD)), np.float64)
    mean, std = logits.mean((0, 1, 2)), logits.std((0, 1, 2))
    kernel, bias = params[_OUTPUT + "kernel"] / std, (params[_OUTPUT + "bias"] - mean) / std
    return params | {
        _OUTPUT + "kernel": kernel.astype(np.float32),
        _OUTPUT + "bias": bias.astype(np.float32),
    }


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
