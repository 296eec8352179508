"""Device augmentation: keyed by sample, equal on any mesh, mixup as in big_vision."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from tests.compare import assert_close, assert_same_bits
from vit_jax.data.augment import (
    AUGMENTATIONS,
    HALF,
    Flip,
    Mixup,
    ValueRange,
    augment,
    check,
    normalize,
)
from vit_jax.data.augment.flip import random_flip
from vit_jax.data.augment.mix import Mix
from vit_jax.data.augment.mixup import mix, mixup_share

KEY = jax.random.key(0)
PLAIN = ValueRange().bound(mean=HALF, std=HALF)


Arrays = tuple[jax.Array, jax.Array, jax.Array]


def augmented(arrays: Arrays, *augmentations) -> tuple[jax.Array, jax.Array]:
    batch = dict(zip(("image", "targets", "sample_index"), arrays, strict=True))
    changed = augment(batch, augmentations, key=KEY)
    return changed["image"], changed["targets"]


def inputs(count: int, *, start: int = 0) -> Arrays:
    images = np.random.default_rng(0).integers(0, 256, (count, 6, 5, 3), dtype=np.uint8)
    targets = jax.nn.one_hot(np.arange(count) % 4, 4)
    places = np.arange(start, start + count)
    sample_index = np.stack([places >> 32, places & 0xFFFFFFFF], -1).astype(np.uint32)
    return jnp.asarray(images), targets, jnp.asarray(sample_index)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_normalize_gives_minus_one_to_one_by_default(dtype: jnp.dtype) -> None:
    images = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1).repeat(3, axis=-1)
    values = normalize(jnp.asarray(images), mean=HALF, std=HALF, dtype=dtype)
    assert values.dtype == dtype
    expected = images / 127.5 - 1
    assert_close(values.astype(jnp.float32), expected, atol=4e-3)
    assert values.min() == -1 and values.max() == 1


def test_normalize_takes_mean_and_deviation_by_channel() -> None:
    images, _, _ = inputs(2)
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    expected = (np.asarray(images) / 255 - np.array(mean)) / np.array(std)
    assert_close(normalize(images, mean=mean, std=std), expected, atol=1e-5)


def test_without_flip_and_mixup_only_the_range_changes() -> None:
    images, targets, sample_index = inputs(4)
    values, mixed = augmented((images, targets, sample_index), PLAIN)
    np.testing.assert_array_equal(values, normalize(images, mean=HALF, std=HALF))
    np.testing.assert_array_equal(mixed, targets)


def test_flip_mirrors_half_of_the_images_chosen_by_their_sample_index() -> None:
    images, _, sample_index = inputs(512)
    flipped = jax.jit(random_flip)(images, sample_index, key=KEY)
    mirrored = (flipped == images[:, :, ::-1]).all((1, 2, 3))
    same = (flipped == images).all((1, 2, 3))
    assert (mirrored ^ same).all()
    assert 0.4 < mirrored.mean() < 0.6
    part = random_flip(images[100:], sample_index[100:], key=KEY)
    np.testing.assert_array_equal(part, flipped[100:])
    later = inputs(512, start=2**32)[2]  # the low words are equal
    assert not np.array_equal(random_flip(images, later, key=KEY), flipped)


def test_mixup_mixes_each_sample_with_its_predecessor_in_the_global_batch() -> None:
    images, targets, _ = inputs(8)
    mixup = Mixup(alpha=0.5)
    values, mixed = jax.jit(lambda *a: augmented(a, PLAIN, mixup))(*inputs(8))
    share = mixed[0, 0]  # target 0 with target 3
    assert 0.5 <= share < 1
    plain = normalize(images, mean=HALF, std=HALF)
    for row in range(8):
        expected = share * plain[row] + (1 - share) * plain[row - 1]
        assert_close(values[row], expected, atol=1e-6)
        assert_close(mixed[row], share * targets[row] + (1 - share) * targets[row - 1], atol=1e-6)
    assert_close(mixed.sum(-1), 1, atol=1e-6)
    _, next_step = augmented((images, targets, inputs(8, start=8)[2]), PLAIN, mixup)
    assert not np.array_equal(next_step, mixed)


def test_mixup_share_is_the_larger_part_of_a_beta() -> None:
    keys = jax.random.split(KEY, 4000)
    shares = jax.jit(jax.vmap(lambda key: mixup_share(key, alpha=0.2)))(keys)
    assert shares.min() >= 0.5 and shares.max() <= 1
    # The mean of max(x, 1 - x) of Beta(0.2, 0.2) by numerical integration of its density.
    sample = np.random.default_rng(0).beta(0.2, 0.2, 200_000)
    assert_close(shares.mean(), np.maximum(sample, 1 - sample).mean(), atol=0.01)


def test_mix_with_the_whole_share_changes_nothing() -> None:
    values = jnp.arange(6.0).reshape(3, 2)
    np.testing.assert_array_equal(mix(values, jnp.float32(1)), values)


def test_a_sharded_batch_gives_the_same_values() -> None:
    devices = jax.devices()
    mesh = Mesh(np.array(devices), ("data",))
    arrays = inputs(2 * len(devices))
    function = jax.jit(lambda *a: augmented(a, Flip(), PLAIN, Mixup(alpha=0.2)))
    expected = function(*arrays)
    sharding = NamedSharding(mesh, PartitionSpec("data"))
    result = function(*(jax.device_put(a, sharding) for a in arrays))
    for one, other in zip(result, expected, strict=True):
        np.testing.assert_array_equal(one, other)


FLIP_AND_MIXUP = jax.jit(lambda *a: augmented(a, Flip(), PLAIN, Mixup(alpha=0.2)))


@pytest.mark.parametrize(
    ("start", "flips", "share"),
    [
        (0, "1111010001001101", 0.9989526271820068),
        (8, "0100110100010101", 0.7433801889419556),
        (2**33, "1110110000111011", 0.6690793633460999),
    ],
)
def test_flips_and_mixup_are_those_of_every_earlier_version(start, flips, share) -> None:
    """Each has a key of its own, folded with the sample index."""
    sample_index = inputs(16, start=start)[2]
    images = jnp.zeros((16, 1, 2, 3), jnp.uint8).at[:, :, 1].set(255)  # black left, white right
    targets = jnp.eye(16)
    values, mixed = FLIP_AND_MIXUP(images, targets, sample_index)
    assert_close(mixed.diagonal(), share, rtol=1e-6)
    left = np.roll(np.array([flip == "1" for flip in flips]), 1) * (1 - share)
    left += np.array([flip == "1" for flip in flips]) * share
    assert_close(values[:, 0, 0, 0], 2 * left - 1, atol=1e-5)


@pytest.mark.parametrize(
    ("names", "gives", "message"),
    [
        (("mixup", "value_range"), ("targets",), "mixup needs normalised values: put value_range"),
        (("value_range", "flip"), (), "flip needs uint8 pixels: put it before value_range"),
        (("value_range", "mixup"), (), "mixup needs targets from the objective"),
        (("flip",), (), "lacks value_range"),
        (("value_range", "value_range"), (), "value_range needs uint8 pixels"),
    ],
)
def test_an_order_that_cannot_work_is_refused(names, gives, message) -> None:
    with pytest.raises(ValueError, match=message):
        check([AUGMENTATIONS[name]() for name in names], gives=frozenset(gives))


def test_every_augmentation_has_a_stream_of_numbers_of_its_own() -> None:
    streams = [kind.stream for kind in AUGMENTATIONS.values()]
    assert len(set(streams)) == len(streams)


def test_mixup_without_a_distribution_is_refused() -> None:
    for alpha in (0.0, -1.0, float("nan")):
        with pytest.raises(ValueError, match="alpha is"):
            Mixup(alpha=alpha)


@pytest.mark.parametrize("kind", [Mixup(), Mix(mode="pair")])
def test_the_answers_of_a_teacher_are_mixed_like_the_labels(kind) -> None:
    images, targets, index = inputs(8)
    answers = jax.random.uniform(KEY, targets.shape)
    batch = {"image": images.astype(jnp.float32), "targets": targets, "sample_index": index}
    alone = kind(batch, key=KEY)
    assert set(alone) == set(batch)
    both = kind(batch | {"teacher_targets": answers}, key=KEY)
    assert_same_bits(both["targets"], alone["targets"])
    swapped = kind(batch | {"targets": answers}, key=KEY)
    assert_same_bits(both["teacher_targets"], swapped["targets"])
    assert np.abs(both["teacher_targets"] - answers).max() > 0.01
