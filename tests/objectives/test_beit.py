"""BEiT: its masks have the original's statistics, and its loss is the original's."""

import functools
import json
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.sharding import NamedSharding

import vit_jax
from tests.checkpoints.parity import check_gradients
from tests.compare import assert_close
from tests.models import tiny
from vit_jax.checkpoints import files
from vit_jax.checkpoints.layouts.torch.beit import LAYOUT as layout
from vit_jax.data.augment.contract import at
from vit_jax.data.record import DataFacts
from vit_jax.models import zoo
from vit_jax.objectives import beit
from vit_jax.objectives.beit import MaskedImageModeling
from vit_jax.parallel.mesh import BATCH, MeshConfig, make_mesh

FACTS = DataFacts(train_size=100)


@functools.partial(jax.jit, static_argnames=("grid", "hidden", "smallest", "most", "count"))
def masks(*, count: int, **sizes: Any) -> jax.Array:
    keys = jax.random.split(jax.random.key(0), count)
    return jax.vmap(lambda key: beit.block_mask(key, **sizes))(keys)


@pytest.mark.parametrize(
    ("name", "grid", "smallest"),
    [
        ("14x14_n75_min16_maxNone", (14, 14), 16),
        ("14x14_n75_min16_max40", (14, 14), 16),
        ("8x12_n38_min4_maxNone", (8, 12), 4),
        ("6x6_n14_min4_maxNone", (6, 6), 4),
    ],
)
def test_masks_have_the_statistics_of_the_original(shared, name, grid, smallest) -> None:
    """Counts, marginals and neighbours of 20,000 masks, within 4 standard errors."""
    folder = shared / "fixtures/beit_masking_generator"
    io = np.load(folder / "io.npz")
    histogram, marginal = io[f"{name}_count_hist"], io[f"{name}_marginal"]
    hidden, theirs = len(histogram) - 1, int(histogram.sum())
    most = 40 if name.endswith("max40") else hidden
    count = 20_000
    found = np.asarray(masks(count=count, grid=grid, hidden=hidden, smallest=smallest, most=most))
    errors = 4 * np.sqrt(1 / count + 1 / theirs)
    counts = found.sum(axis=(1, 2))
    assert counts.max() == hidden, "never more"
    shares = np.bincount(counts, minlength=hidden + 1) / count
    expected = histogram / theirs
    assert (np.abs(shares - expected) <= errors * np.sqrt(expected) + 1e-3).all()
    spread = np.sqrt(marginal * (1 - marginal))
    assert (np.abs(found.mean(axis=0) - marginal) <= errors * spread + 1e-3).all()
    statistics = json.loads((folder / "meta.json").read_text())["statistics"][name]
    agreement = (found[:, :, 1:] == found[:, :, :-1]).mean()
    bound = errors * statistics["horizontal_agreement_std"]
    assert abs(agreement - statistics["horizontal_agreement"]) <= bound


def test_no_mask_is_empty_even_on_a_grid_of_two_rows() -> None:
    """Half of all blocks are too high for it."""
    found = np.asarray(masks(count=500, grid=(2, 3), hidden=5, smallest=1, most=5))
    assert found.any(axis=(1, 2)).all() and not found.all(axis=(1, 2)).any()


def test_a_mask_belongs_to_its_sample() -> None:
    options = zoo.options("BEiT-pretrain-B/16", image_size=(128, 192))
    objective = MaskedImageModeling(hidden=38, smallest_block=4)
    index = jnp.asarray([[0, 7], [0, 8], [1, 7]], jnp.uint32)
    key = jax.random.key(3)
    hidden = objective.prepare({"sample_index": index}, options=options, key=key)["hidden"]
    again = objective.prepare({"sample_index": index[1:]}, options=options, key=key)["hidden"]
    assert hidden.shape == (3, 8 * 12)
    np.testing.assert_array_equal(hidden[1:], again)
    assert not np.array_equal(hidden[0], hidden[1]) and not np.array_equal(hidden[0], hidden[2])


def test_the_largest_block_is_that_of_the_config() -> None:
    options = zoo.options("BEiT-pretrain-B/16", image_size=(224, 224))
    index = jnp.asarray([[0, 7], [0, 8]], jnp.uint32)
    made = {}
    for largest in (0, 40):
        objective = MaskedImageModeling(hidden=75, smallest_block=16, largest_block=largest)
        key = jax.random.fold_in(jax.random.key(3), beit._STREAM)
        batch = objective.prepare({"sample_index": index}, options=options, key=jax.random.key(3))
        made[largest] = np.asarray(batch["hidden"])
        for row, one in zip(made[largest], index, strict=True):
            sizes = {"grid": (14, 14), "hidden": 75, "smallest": 16, "most": largest or 75}
            wanted = beit.block_mask(at(key, one), **sizes)
            np.testing.assert_array_equal(row, wanted.ravel())
    assert (made[0] != made[40]).any()


def test_loss_and_gradients_are_those_of_the_original(shared) -> None:
    """Given its masks and visual tokens."""
    folder = shared / "fixtures/beit_pretrain_mim"
    io = np.load(folder / "io.npz")
    model: Any = vit_jax.load(folder / "checkpoint.pth")
    # Visible patches have the token that would be predicted there, and must not count.
    logits = model.patch_logits(jnp.asarray(io["images"]), mask=jnp.asarray(io["mask"]))
    tokens = np.array(logits.argmax(-1))
    tokens[io["mask"]] = io["masked_labels"]
    scores = jax.nn.one_hot(tokens.reshape(3, 4, 4), 64)
    batch = {"image": jnp.asarray(io["images"]), "hidden": jnp.asarray(io["mask"])}
    objective = MaskedImageModeling(hidden=9, smallest_block=1)

    def mean(model: Any) -> Any:
        frozen = {"tokenizer": lambda images: scores}
        found = objective.loss(model, batch, key=None, frozen=frozen)
        return found.values.sum() / found.weights.sum(), found

    (value, found), gradients = nnx.jit(nnx.value_and_grad(mean, has_aux=True))(model)
    np.testing.assert_array_equal(found.weights, [5, 5, 5])
    assert_close(value, io["expected_loss"])
    hits = io["expected_masked_logits"].argmax(-1) == io["masked_labels"]
    assert float(found.extras["accuracy"].sum()) == hits.sum()
    check_gradients(
        gradients, layout, files.read_arrays(folder / "grads.safetensors"), model.options
    )


def test_the_held_out_loss_is_the_mean_over_images() -> None:
    objective = MaskedImageModeling(hidden=5, smallest_block=1)
    model = tiny.model(mask_token=True, num_classes=0, mim_classes=6)
    index = jnp.asarray([[0, 1], [0, 2], [0, 3]], jnp.uint32)
    batch = {"image": tiny.images(3), "sample_index": index}
    scores = jax.nn.one_hot(jnp.asarray([0, 1, 2, 3, 4, 5]).reshape(1, 2, 3), 6).repeat(3, axis=0)
    frozen = {"tokenizer": lambda images: scores}

    def measured(*mask: bool) -> dict[str, float]:
        sums = objective.measure(model, batch | {"mask": jnp.asarray(mask)}, frozen=frozen)
        return {name: float(value) for name, value in sums.items()}

    alone = [measured(*row) for row in np.eye(3, dtype=bool)]
    for name, value in measured(True, False, True).items():
        assert value == pytest.approx(alone[0][name] + alone[2][name], rel=1e-5)
    assert all(np.isfinite(one["loss"]) and one["loss"] > 0 for one in alone), alone


def test_an_image_with_few_hidden_patches_counts_as_much_as_others() -> None:
    """A head that always says the first token is right everywhere if that is the token."""
    objective = MaskedImageModeling(hidden=5, smallest_block=1)
    model = tiny.model(mask_token=True, num_classes=0, mim_classes=6)
    model.mim_head.kernel[...] = jnp.zeros_like(model.mim_head.kernel[...])
    model.mim_head.bias[...] = jnp.asarray([1.0, 0, 0, 0, 0, 0])
    index = jnp.asarray(np.stack([np.zeros(8), np.arange(8)], 1), jnp.uint32)
    hidden = objective._masks(index, model.options, key=jax.random.key(3)).sum(axis=1)
    assert hidden.min() < hidden.max(), "or the test would prove little"
    batch = {"image": tiny.images(8), "sample_index": index, "mask": jnp.ones(8, bool)}
    scores = jax.nn.one_hot(jnp.zeros((8, 2, 3), int), 6)
    found = objective.measure(model, batch, frozen={"tokenizer": lambda images: scores})
    assert_close(found["accuracy"], 8.0)
    assert_close(found["loss"], 8 * (np.log(np.e + 5) - 1), rtol=1e-5)


def test_the_tokenizer_gets_images_with_a_token_for_each_patch() -> None:
    objective = MaskedImageModeling(tokenizer="FILE")
    options = zoo.options("BEiT-pretrain-B/16", image_size=(224, 256))
    tokenizer = zoo.options("DALL-E-dVAE", image_size=(256, 256))
    fitted: Any = objective.fit_frozen(options, {"tokenizer": tokenizer})["tokenizer"]
    assert fitted.image_size == (112, 128) and fitted.grid == options.grid
    # `second_interpolation` of the original.
    assert objective.frozen_models()["tokenizer"].interpolation == "lanczos3"


@pytest.mark.parametrize(
    ("tokenizer", "message"),
    [
        ("B/16", r"objective.tokenizer \(FILE\) is a ViT, which has no visual tokens"),
        ("DALL-E-dVAE", "has 8192 visual tokens, .* one of 512: set --config.model.mim_classes"),
    ],
)
def test_a_tokenizer_that_does_not_fit_is_refused(tokenizer, message) -> None:
    options = zoo.options("BEiT-pretrain-B/16", mim_classes=512)
    with pytest.raises(ValueError, match=message):
        MaskedImageModeling(tokenizer="FILE").fit_frozen(
            options, {"tokenizer": zoo.options(tokenizer)}
        )


@pytest.mark.parametrize("name", ["R50x1", "Swin-T", "R50+B/16", "MAE-pretrain-B/16"])
def test_a_model_without_patches_of_the_image_is_refused(name) -> None:
    with pytest.raises(ValueError, match="objective is beit, which cannot train a"):
        MaskedImageModeling().model(zoo.options(name), FACTS)


@pytest.mark.parametrize(
    ("fields", "size", "message"),
    [
        ({"hidden": 0}, 224, "hidden is 0: it must be positive"),
        ({"hidden": 196}, 224, "hidden is 196, but the image has only 14 x 14 patches"),
        ({"hidden": 10}, 224, "smallest_block is 16: it must be from 1 to 10"),
        ({"smallest_block": 0}, 224, "smallest_block is 0"),
        ({"largest_block": 8}, 224, "smallest_block is 16: it must be from 1 to 8"),
        ({"largest_block": -1}, 224, "largest_block is -1: it must not be negative"),
        ({"hidden": 8, "smallest_block": 8}, 48, "no such block fits into 3 x 3 patches"),
    ],
)
def test_masks_that_cannot_be_made_are_refused(fields, size, message) -> None:
    with pytest.raises(ValueError, match=message):
        MaskedImageModeling(**fields).model(
            zoo.options("BEiT-pretrain-B/16", image_size=size), FACTS
        )


def test_initial_values_are_those_of_beit() -> None:
    model: Any = zoo.create("BEiT-pretrain-B/16", image_size=32, width=192, num_heads=3, depth=3)
    blocks = model.encoder.blocks
    cut = 0.02 * 0.5396  # the deviation of a normal distribution that is cut at one deviation
    for kernel, scale in (
        (blocks.attention.qkv.kernel, 1),
        (blocks.attention.out.kernel, np.sqrt([2, 4, 6])),
        (blocks.mlp.fc1.kernel, 1),
        (blocks.mlp.fc2.kernel, np.sqrt([2, 4, 6])),
    ):
        found = np.asarray(kernel[...]).reshape(3, -1)
        assert_close(found.std(axis=1) * scale, np.full(3, cut), rtol=0.02)
        assert np.abs(found).max() <= 0.02
    assert_close(np.asarray(model.mim_head.kernel[...]).std(), cut, rtol=0.02)
    np.testing.assert_array_equal(blocks.mlp.fc1.bias[...], 0)
    np.testing.assert_array_equal(blocks.scale1[...], np.float32(0.1))
    np.testing.assert_array_equal(model.encoder.relative_bias[...], 0)


def test_each_device_makes_the_masks_of_its_own_rows() -> None:
    """Without asking the others whether their masks are finished."""
    options, objective = zoo.options("BEiT-pretrain-B/16"), MaskedImageModeling()
    index = jnp.asarray(np.stack([np.zeros(16), np.arange(16)], 1), jnp.uint32)

    def hidden(index: jax.Array) -> jax.Array:
        key = jax.random.key(3)
        return objective.prepare({"sample_index": index}, options=options, key=key)["hidden"]

    alone = jax.jit(hidden)(index)
    mesh = make_mesh(MeshConfig(data=4, fsdp=2))
    with jax.set_mesh(mesh):
        split = jax.device_put(index, NamedSharding(mesh, BATCH))
        program = jax.jit(hidden).lower(split).compile()
        np.testing.assert_array_equal(program(split), alone)
    assert not re.search("all-reduce|all-gather|all-to-all|collective-permute", program.as_text())
