"""What evaluations measure of pretraining: each image by its own draw, and no padding."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.compare import assert_close
from tests.models import tiny
from vit_jax.checkpoints import load
from vit_jax.models import zoo
from vit_jax.models.decoder import DecoderOptions
from vit_jax.objectives import mae, masked_patch
from vit_jax.objectives.beit import MaskedImageModeling
from vit_jax.objectives.dvae import DiscreteVAE
from vit_jax.objectives.mae import MaskedAutoencoding
from vit_jax.objectives.masked_patch import MaskedPatchPrediction

SIZE, PATCH, GRID = (16, 24), (4, 4), (4, 6)
MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)
INDEX = jnp.asarray([[0, 1], [0, 2], [1, 1]], jnp.uint32)
DVAE = {"hidden": 4, "groups": 2, "blocks": 1, "vocabulary": 6, "code_width": 4}
SMALL_DECODER = DecoderOptions(width=16, depth=1, mlp_dim=16, num_heads=2)
TOKENS = jax.nn.one_hot(jnp.arange(24).reshape(1, *GRID) % 12, 12)

CASES: dict[str, tuple[Any, dict[str, Any]]] = {
    "mean_colour": (MaskedPatchPrediction(), {"mask_token": True, "mim_classes": 512}),
    "colours_4x4": (
        MaskedPatchPrediction(target="colours_4x4"),
        {"mask_token": True, "mim_classes": 8192},
    ),
    "pixels": (MaskedPatchPrediction(target="pixels"), {"mask_token": True, "mim_classes": 48}),
    "a quarter": (MaskedPatchPrediction(corrupt=0.25), {"mask_token": True, "mim_classes": 512}),
    "mae": (MaskedAutoencoding(), {"decoder": SMALL_DECODER}),
    "half of mae": (MaskedAutoencoding(mask_ratio=0.5), {"decoder": SMALL_DECODER}),
    "beit": (
        MaskedImageModeling(hidden=9, smallest_block=2),
        {"mask_token": True, "mim_classes": 12},
    ),
    "dvae": (DiscreteVAE(), {}),
}


def model_of(name: str) -> Any:
    if name == "dvae":
        options = zoo.options("DALL-E-dVAE", image_size=SIZE, **DVAE)
        return load.assemble(options, tiny.params(options))
    return tiny.model(image_size=SIZE, patch_size=PATCH, num_classes=0, **CASES[name][1])


def frozen(images: jax.Array) -> jax.Array:
    return TOKENS.repeat(len(images), axis=0)


@pytest.mark.parametrize("name", CASES)
def test_an_image_is_measured_by_its_own_draw_whatever_the_batch(name) -> None:
    """The same image three times: only the index in the split differs, in either word."""
    model, objective = model_of(name), CASES[name][0].bound(mean=MEAN, std=STD)
    images = tiny.images(1, size=SIZE).repeat(3, axis=0)

    @jax.jit
    def measured(images: jax.Array, index: jax.Array, mask: jax.Array) -> dict[str, jax.Array]:
        batch = {"image": images, "sample_index": index, "mask": mask}
        return objective.measure(model, batch, frozen={"tokenizer": frozen})

    alone = [measured(images, INDEX, row) for row in jnp.eye(3, dtype=bool)]
    reversed_batch = [measured(images, INDEX[::-1], row) for row in jnp.eye(3, dtype=bool)]
    damaged = images.at[1].set(jnp.nan)
    several = measured(damaged, INDEX, jnp.asarray([True, False, True]))
    for metric in objective.metrics:
        values = np.asarray([one[metric] for one in alone])
        assert_close(several[metric], values[0] + values[2], rtol=1e-5)
        assert_close([one[metric] for one in reversed_batch], values[::-1], rtol=1e-5)
    if name == "dvae":  # it takes the most likely tokens, so there is no draw
        assert_close(values, np.full(3, values[0]), rtol=1e-5)
    else:
        losses = [float(one["loss"]) for one in alone]
        assert len(set(losses)) == 3, "each has a mask of its own"


HIDDEN = {"mean_colour": 12, "colours_4x4": 12, "pixels": 12, "a quarter": 6}


@pytest.mark.parametrize("name", [*HIDDEN, "mae", "half of mae"])
def test_the_measured_loss_is_the_loss_of_training_for_the_same_masks(name) -> None:
    model, objective = model_of(name), CASES[name][0].bound(mean=MEAN, std=STD)
    batch = {"image": tiny.images(3, size=SIZE), "sample_index": INDEX}
    key = jax.random.key(3)
    if "mae" in name:
        drawn = {"noise": mae.patch_noise(INDEX, model.options, key=key)}
    else:
        share = HIDDEN[name] / 24
        changes = masked_patch.corruption(INDEX, model.options, share=share, key=key)
        drawn = changes._asdict()
        assert (changes.masked != changes.corrupted).any(), "or the test would prove little"
    loss = objective.loss(model, batch | drawn, key=None, frozen={})
    expected = (loss.values / loss.weights).sum()
    found = objective.measure(model, batch | {"mask": jnp.ones(3, bool)}, frozen={})
    assert_close(found["loss"], expected, rtol=1e-5)
    hidden = {"mae": 18, "half of mae": 12}.get(name) or HIDDEN[name]
    np.testing.assert_array_equal(loss.weights, [hidden] * 3)


@pytest.mark.parametrize("name", ["mean_colour", "a quarter"])
def test_a_batch_gets_the_share_of_corrupted_patches_that_is_asked_for(name) -> None:
    objective = CASES[name][0].bound(mean=MEAN, std=STD)
    batch = {"image": tiny.images(3, size=SIZE), "sample_index": INDEX}
    given = objective.prepare(batch, options=model_of(name).options, key=jax.random.key(0))
    np.testing.assert_array_equal(given["corrupted"].sum(axis=1), [HIDDEN[name]] * 3)


@pytest.mark.parametrize("normalise", [True, False])
def test_the_loss_of_a_masked_autoencoder_is_the_mean_square_over_hidden_patches(normalise) -> None:
    objective = MaskedAutoencoding(normalise=normalise, mask_ratio=0.5)
    model, images = model_of("mae"), tiny.images(3, size=SIZE)
    noise = mae.patch_noise(INDEX, model.options, key=jax.random.key(3))
    predicted, mask = model.reconstruct(images, noise=noise, mask_ratio=0.5)
    wanted = np.asarray(mae.patches(images, PATCH), np.float64)
    if normalise:
        deviation = np.sqrt(wanted.var(axis=-1, keepdims=True, ddof=1) + 1e-6)
        wanted = (wanted - wanted.mean(axis=-1, keepdims=True)) / deviation
    errors = np.square(np.asarray(predicted) - wanted).mean(axis=-1)
    found = objective.loss(model, {"image": images, "noise": noise}, key=None, frozen={})
    assert_close(found.values, (errors * np.asarray(mask)).sum(axis=1), rtol=1e-5)


def test_the_error_of_a_discrete_vae_is_the_mean_square_of_pixels_between_0_and_1() -> None:
    model, objective = model_of("dvae"), DiscreteVAE().bound(mean=MEAN, std=STD)
    images = tiny.images(3, size=SIZE)
    batch = {"image": images, "sample_index": INDEX, "mask": jnp.asarray([True, False, True])}
    true = np.asarray(images, np.float64) * STD + MEAN
    errors = np.square(np.asarray(model.rebuilt(images)) - true).mean(axis=(1, 2, 3))
    found = objective.measure(model, batch, frozen={})
    assert_close(found["error"], errors[0] + errors[2], rtol=1e-5)
