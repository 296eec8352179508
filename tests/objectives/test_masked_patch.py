"""Masked patch prediction: its corruption is the paper's, and it pretrains and is fine-tuned."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vit_jax
from tests import runs
from tests.compare import assert_close
from tests.extending.life import Life
from tests.models import tiny
from vit_jax.data.record import DataFacts
from vit_jax.models import zoo
from vit_jax.objectives import masked_patch
from vit_jax.objectives.masked_patch import MaskedPatchPrediction

FACTS = DataFacts(train_size=100)
SMALL = ("--config.objective.name=masked_patch", "--config.model.name=Ti/14", "--config.ema=0")
MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)


@pytest.mark.parametrize("kind", ["unit", "norm"])
def test_labels_loss_and_gradient_are_those_of_vit_pytorch(shared, kind) -> None:
    io = np.load(shared / "fixtures/vitpytorch_mpp_loss/io.npz")
    images = jnp.asarray(io[f"{kind}_images"])
    if kind == "norm":
        images = jnp.asarray(io["norm_images"] * np.float32(STD) + np.float32(MEAN))
    labels = masked_patch.colours(images, (8, 8))
    np.testing.assert_array_equal(labels[..., 0], io[f"{kind}_target_labels"])
    mask = jnp.asarray(io[f"{kind}_mask"])

    def loss(logits: jax.Array) -> jax.Array:
        errors = masked_patch.colour_errors(logits, labels)
        return jnp.where(mask, errors, 0).sum() / mask.sum(dtype=np.float32)

    value, gradient = jax.value_and_grad(loss)(jnp.asarray(io[f"{kind}_pred"]))
    assert_close(value, io[f"{kind}_loss"])
    assert_close(gradient, io[f"{kind}_dpred"])


@pytest.mark.parametrize(("target", "outputs"), [("mean_colour", 512), ("colours_4x4", 8192)])
def test_an_image_of_one_colour_has_this_colour_everywhere(target, outputs) -> None:
    objective = MaskedPatchPrediction(target=target)
    options = objective.model(zoo.options("Ti/16", image_size=32), FACTS)
    assert (options.mim_classes, options.mask_token) == (outputs, True)
    pixels = jnp.asarray(np.full((1, 32, 32, 3), np.float32([0.0, 0.2, 1.0])))  # bins 0, 1 and 7
    side = 1 if target == "mean_colour" else 4
    labels = masked_patch.colours(pixels, (16, 16), side=side)
    assert labels.shape == (1, 4, side * side)
    np.testing.assert_array_equal(labels, 0 + 8 * 1 + 64 * 7)


def test_a_mean_on_a_border_has_the_lower_bin_and_brighter_pixels_count_as_white() -> None:
    """As torch.bucketize and the clamp of vit-pytorch's loss."""
    border = jnp.full((1, 8, 8, 3), jnp.float32([0.125, 0.25, 0.875]))  # exact in float32
    assert masked_patch.colours(border, (8, 8)).item() == 0 + 8 * 1 + 64 * 6
    halves = jnp.zeros((1, 8, 8, 3)).at[:, :4].set(3.0)  # a mean of 0.5, not 1.5
    assert masked_patch.colours(halves, (8, 8)).item() == 3 * (1 + 8 + 64)


def test_reduced_patches_keep_the_places_of_their_colours() -> None:
    """Row by row; each is the mean of 2x3 pixels."""
    patch = jnp.arange(16.0).reshape(4, 4) / 16
    image = jnp.repeat(jnp.repeat(patch, 2, axis=0), 3, axis=1)[None, :, :, None]
    labels = masked_patch.colours(image + 1e-3, (8, 12), side=4)
    np.testing.assert_array_equal(labels[0, 0], np.arange(16) // 2)


def test_half_of_the_patches_are_corrupted_and_those_in_the_shares_of_the_paper() -> None:
    options = tiny.options(mask_token=True, num_classes=0, mim_classes=8, image_size=(80, 80))
    index = jnp.asarray(np.stack([np.zeros(2000), np.arange(2000)], 1), jnp.uint32)
    changes = masked_patch.corruption(index, options, share=0.5, key=jax.random.key(1))
    corrupted, masked, source = map(np.asarray, changes)
    assert (corrupted.sum(axis=1) == 50).all()
    replaced = source != np.arange(100)
    assert not (masked & ~corrupted).any() and not (replaced & (~corrupted | masked)).any()
    shares = masked.sum() / corrupted.sum(), replaced.sum() / corrupted.sum()
    assert_close(shares, (0.8, 0.1), atol=0.01)
    assert np.abs(corrupted.mean(axis=0) - 0.5).max() < 0.06, "every patch as often as any other"
    again = masked_patch.corruption(index[7:], options, share=0.5, key=jax.random.key(1))
    np.testing.assert_array_equal(again.source, source[7:])


def test_another_patch_is_never_the_patch_itself_and_each_of_the_others_as_often() -> None:
    options = tiny.options(mask_token=True, num_classes=0, mim_classes=8, image_size=(16, 16))
    index = jnp.asarray(np.stack([np.zeros(8000), np.arange(8000)], 1), jnp.uint32)
    changes = masked_patch.corruption(index, options, share=0.5, key=jax.random.key(1))
    steps = np.bincount(((np.asarray(changes.source) - np.arange(4)) % 4).ravel(), minlength=4)
    assert_close(steps[1:] / 16_000, np.full(3, 0.1 / 3), atol=0.004)


def test_corrupted_patches_reach_the_encoder_as_they_should() -> None:
    model = tiny.model(mask_token=True, num_classes=0, mim_classes=8)
    images = tiny.images(1)
    plain = model.encoder.patches(images)
    source = jnp.asarray([[0, 4, 2, 3, 4, 5]])
    mask = jnp.asarray([[False, False, True, False, False, False]])
    changed = model.encoder.patches(images, mask, source)
    np.testing.assert_array_equal(changed[0, 1], plain[0, 4])
    np.testing.assert_array_equal(changed[0, 2], model.encoder.mask[0, 0])
    np.testing.assert_array_equal(changed[0, [0, 3, 4, 5]], plain[0, [0, 3, 4, 5]])


def test_the_loss_of_pixels_is_the_squared_error_of_corrupted_patches() -> None:
    objective = MaskedPatchPrediction(target="pixels").bound(mean=MEAN, std=STD)
    options = objective.model(tiny.options(num_classes=0), FACTS)
    assert options.mim_classes == 8 * 8 * 3
    model = tiny.model(num_classes=0, mask_token=True, mim_classes=options.mim_classes)
    batch = {"image": tiny.images(), "sample_index": jnp.asarray([[0, 1], [0, 4]], jnp.uint32)}
    batch = objective.prepare(batch, options=options, key=jax.random.key(0))
    assert (batch["masked"] != batch["corrupted"])[1].any(), "or the test would prove little"
    values, weights, _ = objective.loss(model, batch, key=jax.random.key(0), frozen={})
    outputs = model.patch_logits(batch["image"], mask=batch["masked"], source=batch["source"])
    image = np.asarray(batch["image"][1]).reshape(2, 8, 3, 8, 3).swapaxes(1, 2).reshape(6, -1)
    error = ((np.asarray(outputs[1]) - image) ** 2).mean(-1)
    assert_close(values[1], error[np.asarray(batch["corrupted"][1])].sum(), rtol=1e-5)
    np.testing.assert_array_equal(weights, [3, 3])


@pytest.mark.parametrize("name", ["R50x1", "Swin-T", "R50+B/16", "MAE-pretrain-B/16"])
def test_a_model_without_patches_of_the_image_is_refused(name) -> None:
    with pytest.raises(ValueError, match="objective is masked_patch, which cannot train a"):
        MaskedPatchPrediction().model(zoo.options(name), FACTS)


@pytest.mark.parametrize("share", [0.0, 1.0, -0.5, float("nan")])
def test_a_share_of_all_or_nothing_is_refused(share) -> None:
    with pytest.raises(ValueError, match="corrupt is"):
        MaskedPatchPrediction(corrupt=share)


def test_a_patch_that_cannot_be_reduced_to_4x4_is_refused() -> None:
    with pytest.raises(ValueError, match="needs a patch size that is a multiple of 4"):
        MaskedPatchPrediction(target="colours_4x4").model(zoo.options("H/14"), FACTS)


def test_it_pretrains_goes_on_with_the_same_bits_and_is_fine_tuned(tmp_path, monkeypatch, capsys):
    life = Life(tmp_path, monkeypatch)
    pretrained = life.lives(*SMALL)
    last = [line for line in runs.lines(pretrained) if "eval_loss" in line][-1]
    assert last["eval_loss"] < 1.1 * np.log(512) and last["eval_count"] == 5000
    overrides = ("--config.model.name=", f"--config.init_from={pretrained}")
    assert life.train("tuned", *overrides) == 0
    assert "dropped: encoder/mask" in capsys.readouterr().err
    assert vit_jax.load(tmp_path / "tuned").options.num_classes == 10
