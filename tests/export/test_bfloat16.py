"""Kernels stored in bfloat16 are those that a bfloat16 model rounds: storing them loses nothing."""

import dataclasses
from typing import Any

import jax
import numpy as np
import pytest
from flax import nnx, traverse_util

from tests.compare import assert_same_bits
from tests.export import families
from tests.models import tiny
from vit_jax.checkpoints import kernels
from vit_jax.export import parity, program
from vit_jax.models import zoo
from vit_jax.models.dvae import DVAEOptions
from vit_jax.models.lora import LoraOptions

OPTIONS: dict[str, zoo.Options] = families.OPTIONS | {
    "attention pooling and a tanh layer": tiny.options(pool="map", representation_size=8, depth=1),
    "LoRA": tiny.options(lora=LoraOptions(rank=2), depth=1),
    "masked image model": tiny.options(mask_token=True, mim_classes=6, num_classes=0, depth=1),
    "discrete VAE": DVAEOptions(
        image_size=(8, 16), hidden=8, groups=2, blocks=1, vocabulary=16, code_width=8
    ),
}


def answers(options: zoo.Options, params: dict[str, Any]) -> dict[str, Any]:
    """All that a model in bfloat16 computes, pretraining included."""
    graphdef, _ = zoo.abstract(options.changed(dtype="bfloat16"))
    model: Any = nnx.merge(graphdef, traverse_util.unflatten_dict(params, sep="/"))
    rng = np.random.default_rng(0)
    images = rng.normal(size=(2, *options.image_size, options.channels)).astype(np.float32)
    found = {"answers": model(images)}
    if hasattr(model, "reconstruct"):
        patches = options.grid[0] * options.grid[1]
        noise = rng.uniform(size=(2, patches)).astype(np.float32)
        found["pixels"] = model.reconstruct(images, noise=noise, mask_ratio=0.5)[0]
    if hasattr(model, "patch_logits"):
        found["visual tokens"] = model.patch_logits(images)
    if hasattr(model, "decode"):
        found["pixels"] = model.decode(jax.nn.softmax(found["answers"]))
    return found


def test_every_family_is_covered() -> None:
    assert {zoo.family_name(options) for options in OPTIONS.values()} == zoo.FAMILIES.keys()


@pytest.mark.parametrize("kind", OPTIONS)
def test_a_bfloat16_model_answers_the_same_with_stored_kernels(kind) -> None:
    options = OPTIONS[kind]
    params, rounded = tiny.params(options), kernels.rounded(options)
    every = {path for path in params if path.endswith("/kernel")}
    assert rounded <= every
    exact = answers(options, params)
    arrays = kernels.stored(params, kind="bfloat16", rounded=rounded)
    assert {path for path, array in arrays.items() if array.dtype != np.float32} == rounded
    assert_same_bits(answers(options, kernels.read(arrays)), exact)
    for path in every - rounded:  # they stay float32 because they must
        more = kernels.read(kernels.stored(params, kind="bfloat16", rounded={path}))
        changed = answers(options, more)
        assert any((changed[name] != exact[name]).any() for name in exact), path


def test_a_program_is_compared_with_a_model_whose_kernels_were_not_rounded_before() -> None:
    """Or the comparison could not see that kernels were stored that must be float32."""
    model = families.model("DeiT with distillation token")
    original = program.of_model(model, activation="softmax")
    exported = original.with_weights("bfloat16")
    assert exported.arrays["head_distillation/kernel"].dtype == np.float32
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, original.image_shape(2), dtype=np.uint8)
    images = parity.Images(pixels=pixels, source="a test", random=True)
    every = {path for path in original.arrays if path.endswith("/kernel")}
    wrong = kernels.stored(original.arrays, kind="bfloat16", rounded=every)
    found = [
        parity.reference(original, dataclasses.replace(exported, arrays=arrays), images).rounded
        for arrays in (exported.arrays, wrong)
    ]
    assert_same_bits(found[0], found[1])
