"""Progressive resolution: the sizes of the steps, and one set of parameters for all of them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx, traverse_util

from tests import cli, runs
from tests.compare import assert_close
from tests.extending.life import Life
from tests.models import tiny
from tests.training.one_step import make_config
from vit_jax.checkpoints import surgery
from vit_jax.config import MeshConfig, default_config, resolve
from vit_jax.data.arrays import open_embedded
from vit_jax.data.crops import Inception
from vit_jax.data.pipeline import train_batches
from vit_jax.data.preprocess import TrainTransform
from vit_jax.data.record import DataFacts
from vit_jax.models import zoo
from vit_jax.models.preprocessing import Preprocessing
from vit_jax.parallel.mesh import make_mesh
from vit_jax.training import frozen
from vit_jax.training.design import design
from vit_jax.training.progressive import METHODS, Models, Stages, resized, stages

HALF = "--config.progressive=((0.5,14),)"  # with patches of 14: one patch, then four


def test_the_size_is_a_function_of_the_step() -> None:
    config = make_config(
        "sgd", fields={"image_size": (64, 96), "progressive": ((0.25, 16), (0.6, 32))}
    )
    found = stages(config, final=(64, 96), total_steps=10)
    assert [found.size(step) for step in range(10)] == [
        *[(16, 24)] * 3,
        *[(32, 48)] * 3,
        *[(64, 96)] * 4,
    ]
    assert found.note == (
        "note: training images are 16x24 up to step 3, 32x48 up to step 6, then 64x96"
    )
    assert stages(make_config("sgd"), final=(64, 96), total_steps=10).note == ""


def test_the_steps_of_a_share_are_exact() -> None:
    """Products of some shares are a little above the whole number."""
    for percent in range(1, 100):
        config = make_config(
            "sgd", fields={"image_size": (64, 96), "progressive": ((percent / 100, 16),)}
        )
        for total in (100, 1000, 10_000_000):
            found = stages(config, final=(64, 96), total_steps=total)
            assert found.ends == (percent * total // 100,)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"progressive": ((0.5, 16), (0.5, 32))}, "growing shares between 0 and 1"),
        ({"progressive": ((0.0, 16),)}, "growing shares between 0 and 1"),
        ({"progressive": ((1.0, 16),)}, "growing shares between 0 and 1"),
        ({"progressive": ((0.5, 0),)}, "heights must be positive"),
        ({"progressive": ((0.5, 64),)}, "has the height 64: it must be below"),
        ({"progressive": ((0.5, 33),), "image_size": (64, 96)}, "a whole number"),
        ({"progressive": ((0.5, 20),)}, r"config.progressive: images of \(20, 20\): .*patch"),
    ],
)
def test_sizes_that_cannot_be_are_refused(fields, message) -> None:
    with pytest.raises(ValueError, match=message):
        config = make_config("sgd", fields={"image_size": (64, 64)} | fields)
        facts = DataFacts(train_size=1000, num_classes=10)
        design(config, facts, make_mesh(MeshConfig(data=8)))


@pytest.mark.parametrize(
    ("hidden", "message"),
    [
        (3, "tokenizer would need images of another size with each size of the images"),
        (5, r"images of \(16, 16\): config.objective.hidden is 5, but the image has only 2 x 2"),
    ],
)
def test_an_objective_that_cannot_train_at_a_size_is_refused(hidden, message) -> None:
    """The tokenizer of BEiT gives a visual token to each patch."""
    tokenizer = zoo.options("DALL-E-dVAE")
    described = frozen.Description(
        options=tokenizer, preprocessing=Preprocessing(image_size=tokenizer.image_size)
    )
    config = default_config()
    config.model.name, config.model.patch_size = "BEiT-pretrain-B/16", (8, 8)
    config.image_size, config.progressive = (32, 32), ((0.5, 16),)
    config.objective = {"name": "beit", "tokenizer": "x", "hidden": hidden, "smallest_block": 1}
    with pytest.raises(ValueError, match=message):
        design(
            resolve(config),
            DataFacts(train_size=1000),
            make_mesh(MeshConfig(data=8)),
            frozen={"tokenizer": described},
        )


def test_the_crop_must_fit_all_sizes(tmp_path, monkeypatch, capsys) -> None:
    Life(tmp_path, monkeypatch).refused(HALF, "--config.data.shift=20")
    assert "config.data.shift is 20: it must be at most 14" in capsys.readouterr().err


CASES = {
    "learned": {},
    "learned_2d": {"position": "learned_2d"},
    "every_block": {"position_at": "every_block"},
    "relative": {"position": "relative"},
    "fixed": {"position": "sincos2d"},
    "beit": {"position": "none", "relative_bias": "shared"},
    "gap": {"pool": "gap", "class_token": False},
}


@pytest.mark.parametrize("case", CASES)
def test_a_smaller_model_is_the_one_that_surgery_makes_and_trains_all_rows(case) -> None:
    model = tiny.model(image_size=(32, 48), num_classes=5, **CASES[case])
    options = model.options
    params = nnx.to_pure_dict(nnx.state(model))
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda x: x + 0.1 * rng.normal(size=x.shape).astype(x.dtype), params)
    small = zoo.change(options, image_size=(16, 24))
    flat = traverse_util.flatten_dict(params, sep="/")
    fitted, _ = surgery.adapt(
        {name: np.asarray(array) for name, array in flat.items()},
        source=options,
        target=small,
        key=jax.random.key(0),
        resize=METHODS,
    )
    expected = traverse_util.unflatten_dict(fitted, sep="/")
    found = jax.jit(lambda p: resized(p, options, small))(params)
    assert_close(found, expected, atol=1e-5)
    both = Stages(ends=(2,), sizes=((16, 24), (32, 48)))
    models = Models(options, zoo.abstract(options)[0], both)
    images = jnp.asarray(rng.normal(size=(2, 16, 24, 3)), jnp.float32)
    graphdef, _ = zoo.abstract(small)
    assert_close(
        models(params, {"image": images})(images), nnx.merge(graphdef, expected)(images), atol=1e-5
    )

    def loss(params):
        return jnp.square(models(params, {"image": images})(images)).sum()

    gradients = traverse_util.flatten_dict(jax.grad(loss)(params), sep="/")
    for path, gradient in gradients.items():
        if path.endswith(("/position", "relative_bias")):
            rows = np.abs(gradient).sum(-1)
            assert np.count_nonzero(rows) > rows.size * (0.5 if "bias" in path else 0.99), path


def test_all_positions_train_on_images_of_a_quarter_of_the_size() -> None:
    """Bilinear interpolation without antialiasing would skip half of the rows and columns."""
    options = tiny.options(image_size=(64, 96))
    params = traverse_util.unflatten_dict(tiny.params(options), sep="/")
    small = zoo.change(options, image_size=(16, 24))

    def total(params):
        return jnp.abs(resized(params, options, small)["encoder"]["position"]).sum()

    gradient = jax.grad(total)(params)["encoder"]["position"]
    assert np.abs(gradient).sum(-1).min() > 0


def test_batches_have_the_size_of_their_step() -> None:
    source = open_embedded("train")
    transform = TrainTransform(size=(28, 28), crop=Inception())
    found = Stages(ends=(2,), sizes=((14, 14), (28, 28)))
    batches = list(
        train_batches(source, transform, seed=0, batch_size=4, num_steps=4, size=found.size)
    )
    assert [batch["image"].shape[1:3] for batch in batches] == [(14, 14)] * 2 + [(28, 28)] * 2
    whole = list(train_batches(source, transform, seed=0, batch_size=4, num_steps=4))
    for one, other in zip(batches, whole, strict=True):
        np.testing.assert_array_equal(one["id"], other["id"])
    np.testing.assert_array_equal(batches[3]["image"], whole[3]["image"])


def test_a_run_whose_images_grow_goes_on_with_the_same_bits(tmp_path, monkeypatch, capsys) -> None:
    whole = Life(tmp_path, monkeypatch).lives(HALF)
    assert "training images are 14x14 up to step 2, then 28x28" in capsys.readouterr().err
    assert runs.arrays(whole)["params/encoder/position"].shape == (1, 5, 16)


def test_a_run_whose_images_grow_is_the_same_on_any_mesh_and_with_micro_batches(
    recipe, tmp_path
) -> None:
    losses = []
    for name, more in (
        ("data", ()),
        ("fsdp", ("--config.mesh.fsdp=4", "--config.optimizer.accumulate=2")),
    ):
        given = ("--config.total.steps=4", "--config.data.crop=center", HALF, *more)
        assert cli.train(recipe, tmp_path / name, *given) == 0
        losses.append([line["loss"] for line in runs.lines(tmp_path / name) if "loss" in line])
    assert_close(*losses, scaled=1e-5)


@pytest.mark.parametrize("name", ["mae", "masked_patch"])
def test_pretraining_on_growing_images_masks_the_patches_of_each_size(
    name, recipe, tmp_path
) -> None:
    model = {"mae": "MAE-pretrain-B/16", "masked_patch": "Ti/14"}[name]
    given = [f"--config.objective.name={name}", f"--config.model.name={model}"]
    given += ["--config.model.patch_size=7", "--config.total.steps=2", HALF]
    decoder = ("width", "depth", "mlp_dim", "num_heads")
    values = (16, 1, 32, 2)
    if name == "mae":
        given += [f"--config.model.decoder.{n}={v}" for n, v in zip(decoder, values, strict=True)]
    assert cli.train(recipe, tmp_path / "run", *given) == 0
    assert np.isfinite([x["loss"] for x in runs.lines(tmp_path / "run") if "loss" in x]).all()
