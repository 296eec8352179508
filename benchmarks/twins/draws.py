"""The random draws of this project's step, computed by its own functions for the peer of a twin."""

import unittest.mock
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from benchmarks.twins.contract import Batch, Draws, Frozen
from vit_jax.data.augment.contract import at
from vit_jax.data.augment.mix import Mix
from vit_jax.data.augment.value_range import normalize
from vit_jax.models import dropping, layers
from vit_jax.objectives.beit import TOKENIZER
from vit_jax.training.design import Design

_BOX = ("top", "bottom", "left", "right")


def run_key(seed: int = 0) -> jax.Array:
    """The key of a run, as `state.create` makes it."""
    return jax.random.split(jax.random.key(seed))[0]


def mix(plan: Design, frozen: Frozen) -> Draws:
    """The draw of `mix` for the whole batch: its share, whether it cuts, and the box.

    Names: mix_share float32 (), mix_cut bool (), mix_top, ... int32 ().
    """
    (augmentation,) = (a for a in plan.config.augment if isinstance(a, Mix))
    assert augmentation.mode == "batch"
    key = jax.random.fold_in(run_key(), augmentation.stream)
    draw = jax.jit(lambda index: augmentation.draw(at(key, index), size=plan.options.image_size))

    def draws(batch: Batch, step: int) -> dict[str, np.ndarray]:
        share, cut, box = draw(batch["sample_index"][0])
        sides = {f"mix_{name}": np.asarray(box[i]) for i, name in enumerate(_BOX)}
        return {"mix_share": np.asarray(share), "mix_cut": np.asarray(cut), **sides}

    return draws


def kept_branches(plan: Design, frozen: Frozen) -> Draws:
    """Which residual branches of each sample are kept: `kept`, bool (B, layers, 2).

    The first of the two is the attention. The model runs with a `drop_path` that only records what
    the real one keeps.
    """
    options: Any = plan.options
    shape = plan.batch["image"].shape
    original, found = dropping.drop_path, list[np.ndarray]()

    def record(x: jax.Array, *, rate: Any, key: jax.Array) -> jax.Array:
        kept = original(jnp.ones((shape[0], 1, 1)), rate=rate, key=key) > 0
        jax.debug.callback(lambda rows: found.append(np.asarray(rows)[:, 0, 0]), kept, ordered=True)
        return x

    def forward(key: jax.Array) -> None:
        params = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape), plan.shapes)
        nnx.merge(plan.graphdef, params)(jnp.zeros(shape), key=key)

    compiled = jax.jit(forward)

    def draws(batch: Batch, step: int) -> dict[str, np.ndarray]:
        found.clear()
        with unittest.mock.patch.object(layers, "drop_path", record):
            compiled(jax.random.fold_in(run_key(), step))
        jax.effects_barrier()
        kept = np.stack(found, axis=1)
        return {"kept": kept.reshape(len(kept), options.depth, 2)}

    return draws


def noise(plan: Design, frozen: Frozen) -> Draws:
    """What `prepare` adds to the batch for a masked autoencoder: `noise`, float32 (B, patches)."""
    return _prepared(plan, "noise")


def tokens(plan: Design, frozen: Frozen) -> Draws:
    """BEiT's mask and its labels: `hidden` bool (B, patches) and `tokens` int32 (B, patches)."""
    masks = _prepared(plan, "hidden")
    mean, std = plan.config.data.mean, plan.config.data.std

    def tokenize(frozen: Frozen, images: jax.Array) -> jax.Array:
        scores = plan.bind(frozen)[TOKENIZER](normalize(images, mean=mean, std=std))
        return scores.argmax(-1).reshape(len(images), -1)

    compiled = jax.jit(tokenize)

    def draws(batch: Batch, step: int) -> dict[str, np.ndarray]:
        return masks(batch, step) | {"tokens": np.asarray(compiled(frozen, batch["image"]))}

    return draws


def _prepared(plan: Design, name: str) -> Draws:
    """An array that `prepare` draws for every sample."""
    prepare = jax.jit(
        lambda batch: plan.objective.prepare(batch, options=plan.options, key=run_key())[name]
    )
    return lambda batch, step: {name: np.asarray(prepare({"sample_index": batch["sample_index"]}))}


def both(
    *makers: Callable[[Design, Frozen], Draws],
) -> Callable[[Design, Frozen], Draws]:
    """The draws of several kinds together."""

    def make(plan: Design, frozen: Frozen) -> Draws:
        parts = [maker(plan, frozen) for maker in makers]
        return lambda batch, step: {k: v for part in parts for k, v in part(batch, step).items()}

    return make
