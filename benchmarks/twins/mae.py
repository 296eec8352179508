"""Pretraining of a masked autoencoder: facebookresearch/mae, and transformers."""

from typing import Any

import ml_collections

from benchmarks.twins import draws
from benchmarks.twins.contract import Twin, sizes
from vit_jax.training.design import Design


def _recipe(config: ml_collections.ConfigDict) -> None:
    config.model.name = "MAE-pretrain-B/16"
    config.model.patch_size = (4, 4)
    config.model.decoder = {"width": 32, "depth": 2, "mlp_dim": 64, "num_heads": 4}
    config.objective.name = "mae"
    config.optimizer.learning_rate = 1.5e-3
    config.optimizer.weight_decay = 0.05
    # The originals decay the tokens too.
    config.optimizer.decay_mask = ("kernel$", "cls$", "mask$")
    config.optimizer.b2 = 0.95
    config.optimizer.clip_norm = 0.0


def _clipped(config: ml_collections.ConfigDict) -> None:
    _recipe(config)
    config.optimizer.clip_norm = 1.0


def _settings(plan: Design) -> dict[str, Any]:
    options: Any = plan.options
    objective: Any = plan.objective
    decoder = options.decoder
    return sizes(plan) | {
        "decoder_width": decoder.width,
        "decoder_depth": decoder.depth,
        "decoder_mlp_dim": decoder.mlp_dim,
        "decoder_heads": decoder.num_heads,
        "mask_ratio": objective.mask_ratio,
    }


FACEBOOK = Twin(
    about="masked autoencoding, AdamW with b2 0.95, decay of tokens, normalised patches",
    recipe=_recipe,
    peer="facebook_mae",
    needs="clone github.com/facebookresearch/mae there, and install torch and timm",
    libraries=("torch", "timm"),
    checkout="mae",
    layout="mae",
    settings=_settings,
    draws=draws.noise,
)

TRANSFORMERS = Twin(
    about="the same with clipping, as Trainer trains ViTMAEForPreTraining",
    recipe=_clipped,
    peer="hf_mae",
    needs="pip install torch transformers, and name that environment: --peer-python",
    libraries=("transformers", "torch"),
    layout="hf",
    settings=_settings,
    draws=draws.noise,
)
