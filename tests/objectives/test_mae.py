"""Masked autoencoding: its loss is the original's, and it pretrains, resumes and is fine-tuned."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import vit_jax
from tests import cli, runs
from tests.compare import assert_close
from tests.extending.life import Life
from vit_jax.checkpoints import run_folder
from vit_jax.data.record import DataFacts
from vit_jax.models import zoo
from vit_jax.models.decoder import random_masking
from vit_jax.models.masked_autoencoder import MaskedAutoencoderOptions
from vit_jax.objectives import mae
from vit_jax.objectives.classification import Classification
from vit_jax.objectives.mae import MaskedAutoencoding

FACTS = DataFacts(train_size=100)
SMALL = (
    *("--config.model.name=MAE-pretrain-Ti/14", "--config.objective.name=mae"),
    *("--config.model.decoder.width=16", "--config.model.decoder.depth=1"),
    *("--config.model.decoder.mlp_dim=16", "--config.model.decoder.num_heads=2"),
    *("--config.objective.mask_ratio=0.5", "--config.ema=0"),
)


def test_patches_are_in_raster_order_with_pixels_row_column_channel():
    images = jnp.arange(2 * 4 * 6 * 3.0).reshape(2, 4, 6, 3)
    patches = mae.patches(images, (2, 3))
    assert patches.shape == (2, 4, 18)
    np.testing.assert_array_equal(patches[1, 3], images[1, 2:, 3:].reshape(-1))
    np.testing.assert_array_equal(mae.patches(images[:, :3, :5], (2, 3)), patches[:, :1])


def test_normalised_targets_ignore_brightness_and_contrast():
    images = jax.random.normal(jax.random.key(0), (1, 8, 8, 3))
    plain, changed = (mae.targets(x, (4, 4), normalise=True) for x in (images, 3 * images + 2))
    assert_close(plain, changed, atol=1e-4)
    assert_close(plain.mean(-1), 0, atol=1e-5)
    assert_close(plain.var(-1, ddof=1), 1, rtol=1e-4)


def test_targets_of_nearly_one_colour_are_damped_as_in_the_original():
    """Its `(target - mean) / (var + 1.e-6) ** .5` with the unbiased variance."""
    image = np.where(np.indices((4, 4, 3)).sum(0) % 2, 0.501, 0.499)
    patch = image.reshape(-1)
    expected = (patch - patch.mean()) / np.sqrt(patch.var(ddof=1) + 1e-6)
    found = mae.targets(jnp.asarray(image[None], jnp.float32), (4, 4), normalise=True)
    assert_close(found[0, 0], expected, rtol=1e-4)
    assert abs(expected).max() < 0.75, "or the damping would not be seen"


def test_the_encoder_sees_the_visible_share():
    """The plan and the choice of how to compute count the work of the encoder with it."""
    assert MaskedAutoencoding(mask_ratio=0.9).encoded == pytest.approx(0.1)
    assert Classification().encoded == 1


@pytest.mark.parametrize(
    ("folder", "file", "layout"),
    [("mae_pretrain_normpix", "checkpoint.pth", None), ("hf_vitmae_normpix", "", None)],
)
def test_loss_and_mask_through_the_objective_are_the_originals(shared, folder, file, layout):
    """In micro-batches of other sizes too: sums of values over sums of weights."""
    path = shared / "fixtures" / folder
    io = np.load(path / "io.npz")
    model = vit_jax.load(path / file if file else path, num_heads=3, decoder_heads=2)
    objective = MaskedAutoencoding()
    batch = {"image": jnp.asarray(io["images"]), "noise": jnp.asarray(io["noise"])}

    def sums(batch):
        values, weights, _ = objective.loss(model, batch, key=jax.random.key(0), frozen={})
        return values, weights

    values, weights = nnx.jit(sums)(batch)
    assert_close(values.sum() / weights.sum(), io["expected_loss"])
    np.testing.assert_array_equal(weights, io["expected_mask"].sum(1))
    parts = [
        nnx.jit(sums)({name: array[rows] for name, array in batch.items()})
        for rows in (slice(0, 1), slice(1, 3))
    ]
    total, weight = (sum(part[i].sum() for part in parts) for i in (0, 1))
    assert_close(total / weight, io["expected_loss"])


def test_as_many_patches_are_visible_as_in_the_original() -> None:
    """`int(L * (1 - mask_ratio))`, which cuts: of 14 patches, 3.5 are 3."""
    noise = jax.random.uniform(jax.random.key(0), (2, 14))
    masking = random_masking(noise, ratio=0.75)
    assert masking.keep.shape == (2, 3)
    np.testing.assert_array_equal(masking.mask.sum(axis=1), [11, 11])


def test_masks_are_keyed_by_the_place_of_a_sample_in_the_run():
    options = zoo.options("MAE-pretrain-B/16", image_size=(32, 64))
    index = jnp.asarray(np.stack([np.zeros(6), np.arange(6)], 1), jnp.uint32)
    noise = mae.patch_noise(index, options, key=jax.random.key(3))
    assert noise.shape == (6, 8)
    np.testing.assert_array_equal(
        noise[2:], mae.patch_noise(index[2:], options, key=jax.random.key(3))
    )
    assert len(np.unique(np.asarray(noise))) == noise.size


def test_a_plain_encoder_becomes_a_masked_autoencoder():
    objective = MaskedAutoencoding()
    options = objective.model(zoo.options("S/16"), FACTS)
    assert isinstance(options, MaskedAutoencoderOptions)
    assert (options.width, options.depth, options.fixed_position) == (384, 12, True)
    same = zoo.options("MAE-pretrain-B/16")
    assert objective.model(same, FACTS) is same


@pytest.mark.parametrize("name", ["R50x1", "Swin-T", "R50+B/16", "BEiT-pretrain-B/16"])
def test_a_model_without_such_an_encoder_is_refused(name):
    with pytest.raises(ValueError, match=r"objective is mae, which cannot train a"):
        MaskedAutoencoding().model(zoo.options(name), FACTS)


@pytest.mark.parametrize("ratio", [0.0, 1.0, -0.5, float("nan")])
def test_a_ratio_that_hides_all_or_nothing_is_refused(ratio):
    with pytest.raises(ValueError, match="mask_ratio is"):
        MaskedAutoencoding(mask_ratio=ratio)


def test_it_pretrains_goes_on_with_the_same_bits_and_is_fine_tuned(tmp_path, monkeypatch, capsys):
    life = Life(tmp_path, monkeypatch)
    pretrained = life.lives(*SMALL)
    assert cli.run("figures", "--workdir", pretrained, "--only", "masked") == 0
    last = [line for line in runs.lines(pretrained) if "eval_loss" in line][-1]
    assert 0.2 < last["eval_loss"] < 2 and last["eval_count"] == 5000
    assert "eval_top1" not in last
    assert f"loss {last['eval_loss']:.4f} on 5000 images" in capsys.readouterr().out
    assert run_folder.read_card(pretrained).class_names == ()
    overrides = ("--config.model.name=", f"--config.init_from={pretrained}")
    assert life.train("tuned", *overrides) == 0
    assert "dropped: decoder/" in capsys.readouterr().err
    assert vit_jax.load(tmp_path / "tuned").options.num_classes == 10


@pytest.mark.parametrize("objective", ["mae", "masked_patch"])
def test_an_objective_that_cannot_train_the_model_is_the_first_thing_that_is_reported(
    tmp_path, refused, objective
) -> None:
    """Before a field that the model does not have, such as the depth that the quick start sets."""
    recipe = runs.ROOT / "configs" / "quickstart.py"
    command = ["train", "--config", str(recipe), "--workdir", str(tmp_path / "run")]
    overrides = ["--config.model.name=R50x1", f"--config.objective.name={objective}"]
    error = refused(*command, *overrides, folder=tmp_path)
    assert f"config.objective is {objective}" in error
    error = refused(*command, overrides[0], folder=tmp_path)
    assert "unknown config field config.model.depth of R50x1" in error
