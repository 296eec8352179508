"""Runs whose model.json has no format number are loaded with their old parameter paths."""

import json
import pathlib
import shutil
from typing import Any

import jax
import numpy as np
import pytest
from flax import nnx, traverse_util

import vit_jax
from tests.models import tiny
from vit_jax.checkpoints import load, old_runs, store
from vit_jax.config import Config
from vit_jax.models import zoo
from vit_jax.models.decoder import DecoderOptions

DECODER = DecoderOptions(width=8, depth=1, mlp_dim=8, num_heads=2)
MODELS: dict[str, dict[str, Any]] = {
    "vit": {"pool": "map"},
    "masked_autoencoder": {"num_classes": 0, "decoder": DECODER},
    "masked_image_model": {"num_classes": 0, "mim_classes": 5},
}
# What the options of a ViT had, whatever the task.
ALL = {"num_classes": 0, "pool": "token", "norm_at": "tokens", "representation_size": 0,
       "distillation_head": True, "head_bias": 0.0, "decoder": None, "mim_classes": 0,
       "mim_norm": False}  # fmt: skip


def age(run: pathlib.Path, model: Any, *, ema: float = 0.0) -> None:
    """Rewrites the folder of a run in the form that earlier versions wrote."""
    card = json.loads((run / "model.json").read_text())
    for name in ("format", "average", "metric"):
        del card[name]
    if (family := card.pop("family")) in ("bit", "swin"):
        card["options"]["family"] = family
    else:
        card["options"] = ALL | card["options"]
    (run / "model.json").write_text(json.dumps(card))
    config = json.loads((run / "config.json").read_text())
    config["ema"] = ema
    (run / "config.json").write_text(json.dumps(config))
    params = old_runs.saved(nnx.to_pure_dict(nnx.state(model)))
    assert "encoder" not in params
    shutil.rmtree(run / "checkpoints/0")
    state = {"params": jax.tree.map(np.zeros_like, params), "ema": params} if ema else {
        "params": params
    }  # fmt: skip
    with store.Store(run, Config().checkpoint) as saved:
        saved.save(3, state, {})


@pytest.mark.parametrize("ema", [0.0, 0.9])
@pytest.mark.parametrize("family", MODELS)
def test_an_old_run_is_loaded_with_its_average_under_the_new_paths(family, ema, tmp_path) -> None:
    model = tiny.model(depth=1, **MODELS[family])
    vit_jax.save(model, tmp_path / "run")
    age(tmp_path / "run", model, ema=ema)
    again = vit_jax.load(tmp_path / "run")
    assert zoo.family_name(again.options) == family
    assert again.options == model.options
    ours, theirs = flat(again), flat(model)
    assert ours.keys() == theirs.keys()
    for path, array in ours.items():
        np.testing.assert_array_equal(array, theirs[path])
    converted = load.read(tmp_path / "run")
    assert converted.params.keys() == theirs.keys()


def test_an_old_run_of_another_family_keeps_its_name(tmp_path) -> None:
    options = zoo.options("Swin-T", image_size=(28, 28), width=8, depths=(1,), num_heads=(2,))
    model = zoo.init(options, key=jax.random.key(0))
    vit_jax.save(model, tmp_path / "run")
    age(tmp_path / "run", model)
    assert vit_jax.load(tmp_path / "run").options == options


def flat(model: Any) -> dict[str, Any]:
    return traverse_util.flatten_dict(nnx.to_pure_dict(nnx.state(model)), sep="/")
