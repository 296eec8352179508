"""Class-balanced sampling: a function of the seed and the sample index, exact in every epoch."""

import collections

import numpy as np
import pytest

from tests import runs
from tests.extending.life import Life
from vit_jax.data.arrays import ArraySource
from vit_jax.data.counter import shuffled_ids
from vit_jax.data.crops import Inception
from vit_jax.data.pipeline import train_batches
from vit_jax.data.preprocess import TrainTransform
from vit_jax.data.record import UNKNOWN
from vit_jax.data.relabelled import Relabelled
from vit_jax.data.sampling import Balanced, Uniform, class_quotas
from vit_jax.data.subset import Subset

FEW_SHOT = (1, 5, 30, 64)  # images of each class
BALANCED = "--config.data.sampling=balanced"


def long_tail(counts=FEW_SHOT) -> ArraySource:
    """Images in a random order; image `i` has the grey value `i`."""
    labels = np.random.default_rng(0).permutation(np.repeat(np.arange(len(counts)), counts))
    images = np.arange(len(labels), dtype=np.uint8)[:, None, None].repeat(8, 1).repeat(8, 2)
    names = tuple("abcdefgh"[: len(counts)])
    return ArraySource(
        name="tail", class_names=names, images=images, labels=labels.astype(np.int32)
    )


def test_every_epoch_has_as_many_samples_of_each_class() -> None:
    source = long_tail()
    order, note = Balanced().order(source, seed=3)
    ids = order(np.arange(4 * 100)).reshape(4, 100)
    for epoch in ids:
        assert np.bincount(source.labels[epoch]).tolist() == [25, 25, 25, 25]
    assert len({tuple(epoch) for epoch in ids}) == 4
    assert note == (
        "note: data.sampling is balanced: an epoch is 100 samples, 25 of each of 4 classes, and"
        " each image is in it 0.3906 to 25 times"
    )


def test_the_images_of_a_class_take_turns() -> None:
    """Also where an epoch ends within a turn: their numbers never differ by more than one."""
    source = long_tail()
    order, _ = Balanced().order(source, seed=0)
    ids = order(np.arange(700))
    turns = collections.defaultdict(list)
    for label, number in enumerate(FEW_SHOT):
        epochs = ids.reshape(7, 100)
        own = [epoch[source.labels[epoch] == label] for epoch in epochs]
        seen = np.bincount(np.concatenate(own), minlength=100)[source.labels == label]
        assert seen.sum() == 175 and seen.max() - seen.min() <= 1
        turns[number] = seen
    assert turns[1].tolist() == [175]


def test_ids_do_not_depend_on_the_range_that_is_asked_for() -> None:
    order, _ = Balanced(class_power=0.5).order(long_tail(), seed=1)
    start = 2**33
    whole = order(np.arange(start, start + 50))
    np.testing.assert_array_equal(whole, [order(np.array([start + i]))[0] for i in range(50)])
    other, _ = Balanced(class_power=0.5).order(long_tail(), seed=2)
    assert np.count_nonzero(other(np.arange(start, start + 50)) != whole) > 25


def test_ids_are_those_of_every_earlier_version() -> None:
    order, _ = Balanced().order(long_tail(), seed=1)
    assert order(np.arange(98, 106)).tolist() == [19, 59, 30, 29, 66, 5, 14, 59]


@pytest.mark.parametrize(
    ("counts", "power", "expected"),
    [
        ((1, 5, 30, 64), 1.0, [1, 5, 30, 64]),
        ((1, 4, 9, 86), 0.5, [6, 13, 20, 61]),  # 6.5, 13.1, 19.6, 60.7
        ((0, 10, 20), 0.0, [0, 15, 15]),
        ((3, 3, 4), 0.0, [4, 3, 3]),
        ((1, 1, 1, 200), 0.0, [51, 51, 51, 50]),
        ((1, 1, 1, 10**6), 0.9, [4, 4, 4, 10**6 - 9]),
        ((1, 10**6, 10**6), 1.0, [1, 10**6, 10**6]),
    ],
)
def test_quotas_follow_the_power_and_fill_the_epoch(counts, power, expected) -> None:
    quotas = class_quotas(np.array(counts), power=power)
    assert quotas.sum() == sum(counts)
    assert quotas.tolist() == expected
    assert np.all((quotas > 0) == (np.array(counts) > 0))


def test_uniform_sampling_is_that_of_every_earlier_version() -> None:
    order, note = Uniform().order(long_tail(), seed=5)
    indices = np.arange(250)
    np.testing.assert_array_equal(order(indices), shuffled_ids(indices, size=100, seed=5))
    assert not note


def test_batches_are_equal_on_any_number_of_processes_and_with_repeats() -> None:
    source = long_tail()
    order, _ = Balanced().order(source, seed=7)
    transform = TrainTransform(size=(8, 8), crop=Inception())

    def ids(rows: slice = slice(None), start: int = 0) -> np.ndarray:
        batches = train_batches(
            source,
            transform,
            seed=7,
            batch_size=12,
            num_steps=20,
            start_step=start,
            rows=rows,
            order=order,
            repeats=3,
        )
        return np.stack([batch["id"] for batch in batches])

    whole = ids()
    np.testing.assert_array_equal(whole.reshape(-1)[::3], order(np.arange(80)))
    np.testing.assert_array_equal(ids(start=13), whole[13:])
    halves = np.concatenate([ids(slice(0, 6)), ids(slice(6, 12))], axis=1)
    np.testing.assert_array_equal(halves, whole)


def test_a_balanced_run_goes_on_with_the_same_bits_and_says_what_an_epoch_is(
    tmp_path, monkeypatch, capsys
) -> None:
    whole = Life(tmp_path, monkeypatch).lives(BALANCED, "--config.data.class_power=0.5")
    said = " ".join(capsys.readouterr().err.split())
    assert "data.sampling is balanced: an epoch is 20,000 samples, 2,000 of each of 10" in said
    assert np.isfinite([line["loss"] for line in runs.lines(whole) if "loss" in line]).all()


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ((BALANCED, "--config.data.class_power=1.5"), "config.data.class_power is 1.5: it must be"),
        (("--config.data.class_power=0.5",), "class_power"),
        (("--config.data.sampling=classes",), "config.data.sampling"),
    ],
)
def test_a_field_out_of_range_is_refused(overrides, message, tmp_path, monkeypatch, capsys) -> None:
    Life(tmp_path, monkeypatch).refused(*overrides)
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


def test_images_without_labels_are_refused() -> None:
    source = long_tail()
    source.labels[7:10] = UNKNOWN
    with pytest.raises(ValueError, match=r"balanced, but 3 of 100 images of tail have no label"):
        Balanced().order(source, seed=0)


def test_labels_of_a_part_and_of_other_numbers_are_those_of_its_records() -> None:
    source = long_tail()
    source.labels[3] = UNKNOWN
    for other in (Subset(source, np.array([5, 3, 80])), Relabelled(source, (2, 0, 3, 1))):
        expected = [other.read(i).label for i in range(len(other))]
        assert np.asarray(other.labels).tolist() == expected
