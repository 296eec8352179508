"""Random numbers and ids depend only on the seed and the sample index."""

import numpy as np

from vit_jax.data.counter import NUMBERS, draw, shuffled_ids


def test_numbers_of_a_range_are_those_of_its_indices_one_by_one() -> None:
    whole = draw("crop", seed=3, start=2**33, count=5)
    assert whole.shape == (5, NUMBERS)
    single = [draw("crop", seed=3, start=2**33 + i, count=1)[0] for i in range(5)]
    np.testing.assert_array_equal(whole, single)


def test_numbers_are_uniform_and_differ_by_index_seed_and_stream() -> None:
    numbers = draw("crop", seed=0, start=0, count=2000)
    assert numbers.min() >= 0 and numbers.max() < 1
    counts = np.histogram(numbers, bins=10, range=(0, 1))[0]
    assert np.abs(counts / numbers.size - 0.1).max() < 0.005
    assert len(np.unique(numbers)) == numbers.size
    for other in (
        draw("crop", seed=1, start=0, count=2000),
        draw("x", seed=0, start=0, count=2000),
    ):
        assert not np.intersect1d(numbers, other).size


def test_negative_seed_is_a_seed() -> None:
    assert not np.array_equal(
        draw("crop", seed=-1, start=0, count=1), draw("crop", seed=1, start=0, count=1)
    )


def test_every_epoch_is_another_permutation() -> None:
    size = 101
    epochs = shuffled_ids(np.arange(4 * size), size=size, seed=7).reshape(4, size)
    for epoch in epochs:
        np.testing.assert_array_equal(np.sort(epoch), np.arange(size))
    orders = {tuple(epoch) for epoch in [*epochs, np.arange(size)]}
    assert len(orders) == 5
    other = shuffled_ids(np.arange(size), size=size, seed=8)
    assert tuple(other) not in orders


def test_ids_of_one_image_exist() -> None:
    np.testing.assert_array_equal(shuffled_ids(np.arange(3), size=1, seed=0), [0, 0, 0])


def test_ids_and_numbers_are_those_of_every_earlier_version() -> None:
    """A run that is resumed with another version must see the same data."""
    ids = shuffled_ids(np.arange(12), size=10, seed=3)
    assert ids.tolist() == [0, 3, 1, 2, 4, 5, 6, 7, 9, 8, 4, 6]
    later = shuffled_ids(2**40 + np.arange(4), size=1_281_167, seed=0)
    assert later.tolist() == [1101718, 912392, 860360, 680643]
    first = draw("crop", seed=0, start=0, count=1)[0, :2]
    assert first.tolist() == [0.017274416720900798, 0.4526524242876315]
    last = draw("crop", seed=7, start=2**33, count=2)[1, -2:]
    assert last.tolist() == [0.6493311764236162, 0.6109848473118904]
    other = draw("replacement", seed=0, start=5, count=1)[0, :2]
    assert other.tolist() == [0.4841039520878442, 0.9018736294248398]
