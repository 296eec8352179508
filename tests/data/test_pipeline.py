"""Batches are pure functions of (seed, step); evaluation sees every example once."""

import dataclasses
import functools
import io
import pathlib
import tarfile
import threading

import numpy as np
import PIL.Image
import pytest

from tests.compare import assert_same_bits
from tests.patience import limit
from vit_jax.data import featured
from vit_jax.data.arrays import ArraySource
from vit_jax.data.bad_images import BadImages
from vit_jax.data.batches import Batch, Batches
from vit_jax.data.counter import draw, shuffled_ids
from vit_jax.data.crops import Inception, Shift
from vit_jax.data.options import DataConfig
from vit_jax.data.pipeline import eval_batches, train_batches
from vit_jax.data.preprocess import EvalTransform, TrainTransform, train_transform
from vit_jax.data.record import Record
from vit_jax.errors import RunFailed

TRAIN = TrainTransform(size=(8, 8), crop=Inception(crop_area=(0.3, 1.0)))
EVAL = EvalTransform(size=(8, 8), center=1.0)


class Files:
    """Encoded images in memory; image `i` has the grey value `i`."""

    name = "files"
    class_names = ("even", "odd")

    def __init__(self, files: list[bytes]) -> None:
        self.files = files

    def __len__(self) -> int:
        return len(self.files)

    def read(self, index: int) -> Record:
        if self.files[index] == b"unreadable":
            raise OSError(5, "Input/output error", f"{index}.png")
        return Record(self.files[index], index % 2, f"{index}.png")


def grey_files(count: int, *, broken: dict[int, bytes] | None = None) -> Files:
    files = []
    for value in range(count):
        file = io.BytesIO()
        PIL.Image.fromarray(np.full((10, 12), value, np.uint8)).save(file, "PNG")
        files.append(file.getvalue())
    for index, data in (broken or {}).items():
        files[index] = data
    return Files(files)


def photos(shared: pathlib.Path) -> Files:
    with tarfile.open(shared / "data" / "imagenet_sample_200.tar") as archive:
        files = [archive.extractfile(m) for m in archive if m.isfile()]
        return Files([file.read() for file in files[:7] if file])


def everything(batches: Batches) -> Batch:
    """All batches joined along their rows."""
    found = list(batches)
    return {key: np.concatenate([b[key] for b in found]) for key in found[0]}


def test_shapes_and_types_are_the_documented_ones() -> None:
    (batch,) = train_batches(grey_files(9), TRAIN, seed=0, batch_size=4, num_steps=1)
    described = {key: (value.shape, value.dtype.name) for key, value in batch.items()}
    assert described == {
        "image": ((4, 8, 8, 3), "uint8"),
        "label": ((4,), "int32"),
        "id": ((4,), "int64"),
        "sample_index": ((4, 2), "uint32"),
    }


def test_a_batch_holds_the_images_and_labels_of_its_ids() -> None:
    for batch in train_batches(grey_files(9), TRAIN, seed=0, batch_size=4, num_steps=5):
        np.testing.assert_array_equal(batch["image"][:, 0, 0, 0], batch["id"])
        np.testing.assert_array_equal(batch["label"], batch["id"] % 2)


def test_indices_count_all_samples_of_the_run_beyond_32_bits() -> None:
    for step, high, low in ((2**31, 2, 0), (2**29, 0, 2**31)):
        batches = train_batches(
            grey_files(9), TRAIN, seed=0, batch_size=4, start_step=step, num_steps=step + 1
        )
        (batch,) = batches
        expected = [[high, low + row] for row in range(4)]
        np.testing.assert_array_equal(batch["sample_index"], expected)


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("prefetch", [1, 4])
def test_photos_do_not_depend_on_threads_processes_or_start(
    shared: pathlib.Path, threads: int, prefetch: int
) -> None:
    source = photos(shared)
    transform = train_transform(DataConfig(), size=(24, 32))
    whole = everything(train_batches(source, transform, seed=5, batch_size=6, num_steps=4))
    hosts = [
        train_batches(
            source,
            transform,
            seed=5,
            batch_size=6,
            rows=rows,
            start_step=2,
            num_steps=4,
            threads=threads,
            prefetch=prefetch,
        )
        for rows in (slice(0, 2), np.array([2, 5]), np.array([3, 4]))
    ]
    steps = [np.concatenate([b["image"] for b in step]) for step in zip(*hosts, strict=True)]
    whole_steps = whole["image"][12:].reshape(2, 6, *whole["image"].shape[1:])
    np.testing.assert_array_equal(steps, whole_steps[:, [0, 1, 2, 5, 3, 4]])
    assert len(np.unique(whole["image"].reshape(24, -1), axis=0)) == 24  # every crop is different


def test_every_epoch_has_every_image_once_and_batches_cross_its_end() -> None:
    ids = everything(train_batches(grey_files(10), TRAIN, seed=1, batch_size=4, num_steps=5))["id"]
    epochs = ids.reshape(2, 10)
    np.testing.assert_array_equal(np.sort(epochs, axis=1), [np.arange(10)] * 2)
    assert not np.array_equal(*epochs)


def test_repeats_are_in_a_row_with_other_crops_and_an_epoch_has_every_image_once() -> None:
    source = photo_like(10)
    whole = everything(train_batches(source, TRAIN, seed=1, batch_size=6, num_steps=5, repeats=3))
    ids = whole["id"].reshape(10, 3)
    assert (ids == ids[:, :1]).all()
    np.testing.assert_array_equal(np.sort(ids[:, 0]), np.arange(10))
    plain = everything(train_batches(source, TRAIN, seed=1, batch_size=10, num_steps=1))
    np.testing.assert_array_equal(ids[:, 0], plain["id"])
    assert len(np.unique(whole["image"].reshape(30, -1), axis=0)) == 30
    parts = [
        train_batches(
            *(source, TRAIN),
            seed=1,
            batch_size=6,
            num_steps=5,
            start_step=2,
            repeats=3,
            rows=slice(first, first + 2),
        )
        for first in (0, 2, 4)
    ]
    later = [np.concatenate([b["image"] for b in step]) for step in zip(*parts, strict=True)]
    np.testing.assert_array_equal(np.concatenate(later), whole["image"][12:])


def photo_like(count: int) -> ArraySource:
    images = np.random.default_rng(0).integers(0, 256, (count, 20, 24), dtype=np.uint8)
    labels = np.zeros(count, np.int32)
    return ArraySource(name="a", class_names=("x",), images=images, labels=labels)


def test_seed_changes_order_and_crops() -> None:
    one, other = (
        everything(train_batches(grey_files(50), TRAIN, seed=s, batch_size=50, num_steps=1))
        for s in (0, 1)
    )
    assert not np.array_equal(one["id"], other["id"])


@pytest.mark.parametrize("size", [(10, 12), (15, 18)])
def test_batches_of_arrays_have_the_pixels_of_files_one_by_one(size: tuple[int, int]) -> None:
    images = np.random.default_rng(0).integers(0, 256, (20, 10, 12), dtype=np.uint8)
    labels = np.arange(20, dtype=np.int32) % 2
    arrays = ArraySource(name="a", class_names=("x", "y"), images=images, labels=labels)
    encoded = []
    for image in images:
        file = io.BytesIO()
        PIL.Image.fromarray(image).save(file, "PNG")
        encoded.append(file.getvalue())
    transform = TrainTransform(size=size, crop=Shift(shift=2))
    one, other = (
        everything(train_batches(source, transform, seed=3, batch_size=7, num_steps=4))
        for source in (arrays, Files(encoded))
    )
    assert_same_bits(one, other)


BROKEN = {3: b"no image", 11: b"unreadable", 17: b"\xff\xd8\xff"}


def test_broken_images_are_replaced_alike_on_any_processes_and_counted_once() -> None:
    source = grey_files(20, broken=BROKEN)
    whole = train_batches(source, TRAIN, seed=0, batch_size=10, num_steps=8, max_bad=0.15)
    batch = everything(whole)
    assert whole.bad.count == 3
    assert set(whole.bad.paths) == {"3.png", "11.png", "17.png"}
    assert not set(BROKEN) & set(batch["id"].tolist())
    np.testing.assert_array_equal(batch["image"][:, 0, 0, 0], batch["id"])
    np.testing.assert_array_equal(batch["label"], batch["id"] % 2)
    hosts = [
        train_batches(
            source,
            TRAIN,
            seed=0,
            batch_size=10,
            rows=slice(first, first + 5),
            start_step=3,
            num_steps=8,
            threads=2,
            max_bad=0.15,
        )
        for first in (0, 5)
    ]
    steps = [np.concatenate([b["id"] for b in step]) for step in zip(*hosts, strict=True)]
    np.testing.assert_array_equal(np.concatenate(steps), batch["id"][30:])


def test_a_replacement_is_that_of_every_earlier_version() -> None:
    """The first readable image by the random numbers of the seed and the sample index."""
    source, seed = grey_files(20, broken=BROKEN), 3
    table = np.arange(20, dtype=np.float16)[:, None]
    batch = everything(
        train_batches(
            source,
            TRAIN,
            seed=seed,
            batch_size=20,
            num_steps=3,
            max_bad=0.15,
            tables={"answers": table},
        )
    )
    np.testing.assert_array_equal(batch["answers"][:, 0], batch["id"])
    ids = shuffled_ids(np.arange(60), size=20, seed=seed)
    replaced = np.flatnonzero(batch["id"] != ids)
    assert {int(ids[row]) for row in replaced} == set(BROKEN) and len(replaced) == 9
    for row in replaced:
        numbers = draw("replacement", seed=seed, start=int(row), count=1)[0]
        found = next(i for i in (numbers * 20).astype(int) if i not in BROKEN)
        assert batch["id"][row] == found


def test_features_come_in_the_order_of_the_images_and_replacements_are_the_same() -> None:
    source = grey_files(20, broken=BROKEN)
    numbers: dict = {"seed": 3, "batch_size": 10, "num_steps": 6}
    images = everything(train_batches(source, TRAIN, **numbers, max_bad=0.15, repeats=2))
    order = functools.partial(shuffled_ids, size=20, seed=3)
    features = featured.Features(
        values=np.arange(40, dtype=np.float32).reshape(20, 1, 2),
        labels=np.arange(20, dtype=np.int32) % 2,
        readable=np.asarray([i not in BROKEN for i in range(20)]),
    )
    parts = [
        featured.train_batches(
            features,
            **numbers,
            start_step=0,
            rows=slice(first, first + 5),
            order=order,
            repeats=2,
            prefetch=2,
            bad=BadImages(size=20, max_bad=0.15),
        )
        for first in (0, 5)
    ]
    halves = list(zip(*parts, strict=True))
    found = {
        key: np.concatenate([half[key] for both in halves for half in both]) for key in halves[0][0]
    }
    np.testing.assert_array_equal(found["features"][:, 0, 0], 2 * images["id"])
    assert_same_bits({k: found[k] for k in ("id", "label", "sample_index")}, without_image(images))
    lost = dataclasses.replace(features, readable=np.zeros(20, bool))
    with pytest.raises(RunFailed, match="are all broken"):
        next(
            featured.train_batches(
                lost,
                **numbers,
                start_step=0,
                rows=slice(None),
                order=order,
                repeats=1,
                prefetch=1,
                bad=BadImages(size=20, max_bad=1.0),
            )
        )


def without_image(batch: Batch) -> Batch:
    return {name: array for name, array in batch.items() if name != "image"}


def test_the_order_and_the_crops_are_those_of_the_counter() -> None:
    """They depend on the seed and the sample index, on every process."""
    source, start = grey_files(30), 2**31
    (batch,) = train_batches(
        source,
        TRAIN,
        seed=9,
        batch_size=8,
        rows=slice(4, 8),
        start_step=start,
        num_steps=start + 1,
    )
    first = start * 8 + 4
    np.testing.assert_array_equal(
        batch["id"], shuffled_ids(np.arange(first, first + 4), size=30, seed=9)
    )
    gradient = np.arange(120, dtype=np.uint8).reshape(10, 12)
    arrays = ArraySource(
        name="a", class_names=("x",), images=gradient[None], labels=np.zeros(1, np.int32)
    )
    (one,) = train_batches(
        arrays, TRAIN, seed=9, batch_size=8, rows=slice(4, 8), start_step=5, num_steps=6
    )
    numbers = draw("crop", seed=9, start=44, count=4)
    expected = [TRAIN(np.stack([gradient] * 3, -1), row) for row in numbers]
    np.testing.assert_array_equal(one["image"], expected)


def test_a_broken_image_is_reported_once_by_path(caplog: pytest.LogCaptureFixture) -> None:
    source = grey_files(8, broken={2: b"no image"})
    everything(train_batches(source, TRAIN, seed=0, batch_size=8, num_steps=5, max_bad=0.5))
    lines = [r.getMessage() for r in caplog.records if "broken image" in r.getMessage()]
    assert len(lines) == 1
    assert lines[0].startswith("broken image 2.png: cannot decode")


def test_too_many_broken_images_stop_the_run_with_count_limit_and_paths() -> None:
    source = grey_files(20, broken=BROKEN)
    batches = train_batches(source, TRAIN, seed=0, batch_size=20, num_steps=3, max_bad=0.1)
    with pytest.raises(RunFailed) as error:
        list(batches)
    message = str(error.value)
    assert message.startswith("3 of 20 images are broken, more than the allowed share 0.1: ")
    assert "3.png" in message and "11.png" in message and "17.png" in message
    assert "\n" not in message
    assert list(batches) == []  # they are closed


def test_a_source_of_broken_images_ends_even_if_all_may_be_broken() -> None:
    source = grey_files(4, broken=dict.fromkeys(range(4), b""))
    with pytest.raises(RunFailed, match="are all broken"):
        next(train_batches(source, TRAIN, seed=0, batch_size=4, num_steps=1, max_bad=1.0))


def test_errors_of_threads_arrive_as_they_are() -> None:
    class Failing(Files):
        def read(self, index: int) -> Record:
            raise ZeroDivisionError("mine")

    for make in (
        lambda s: train_batches(s, TRAIN, seed=0, batch_size=4, num_steps=2),
        lambda s: eval_batches(s, EVAL, batch_size=4),
    ):
        with pytest.raises(ZeroDivisionError, match="mine"):
            next(make(Failing([b""] * 8)))


def test_closing_ends_the_threads_and_the_iteration() -> None:
    before = set(threading.enumerate())  # threads of an earlier test may still be ending
    with train_batches(grey_files(9), TRAIN, seed=0, batch_size=4, num_steps=10**6) as batches:
        next(batches)
        started = set(threading.enumerate()) - before
        assert started
    assert list(batches) == []
    for thread in started:
        thread.join(timeout=limit(10))
    assert not any(thread.is_alive() for thread in started)


def test_a_finished_run_has_no_batches_left() -> None:
    batches = train_batches(grey_files(9), TRAIN, seed=0, batch_size=4, start_step=3, num_steps=3)
    assert list(batches) == []


@pytest.mark.parametrize("hosts", [1, 2, 4])
@pytest.mark.parametrize("count", [1, 8, 21])
def test_evaluation_sees_every_example_once_in_order_on_any_processes(
    hosts: int, count: int
) -> None:
    parts = [
        list(eval_batches(grey_files(count), EVAL, batch_size=8, rows=np.arange(8)[h::hosts]))
        for h in range(hosts)
    ]
    assert {len(part) for part in parts} == {-(-count // 8)}
    joined = {
        key: np.concatenate(
            [
                batch
                for step in range(len(parts[0]))
                for batch in np.stack([part[step][key] for part in parts], axis=1)
            ]
        )
        for key in parts[0][0]
    }
    mask = joined["mask"]
    assert mask.dtype == bool and mask.sum() == count and len(mask) % 8 == 0
    np.testing.assert_array_equal(joined["id"][mask], np.arange(count))
    np.testing.assert_array_equal(joined["label"][mask], np.arange(count) % 2)
    np.testing.assert_array_equal(joined["image"][mask][:, 4, 4, 1], np.arange(count))
    assert not joined["image"][~mask].any() and not joined["label"][~mask].any()
    assert (joined["id"][~mask] == -1).all()


def test_evaluation_masks_broken_images_and_counts_them_over_evaluations() -> None:
    source = grey_files(20, broken=BROKEN)
    bad = BadImages(size=20, max_bad=0.15)
    for _ in range(2):
        batches = eval_batches(source, EVAL, batch_size=8, bad=bad)
        joined = everything(batches)
        assert set(joined["id"][~joined["mask"]].tolist()) == {-1, *BROKEN}
        assert joined["mask"].sum() == 17
        assert batches.bad.count == 3


def test_evaluation_stops_if_too_many_images_are_broken() -> None:
    with pytest.raises(
        RunFailed, match=r"of 20 images are broken, more than the allowed share 0\.001"
    ):
        list(eval_batches(grey_files(20, broken=BROKEN), EVAL, batch_size=8))


def test_each_batch_comes_in_all_versions_before_the_next() -> None:
    """A version gets the number of the image in its split."""
    versions = [lambda crop, number: crop + 100, lambda crop, number: crop * 0 + number + 200]
    found = list(eval_batches(grey_files(3), EVAL, batch_size=2, versions=versions))
    pixels = [batch["image"][batch["mask"]][:, 4, 4, 1].tolist() for batch in found]
    assert pixels == [[100, 101], [200, 201], [102], [202]]
    assert [batch["id"].tolist() for batch in found] == [[0, 1], [0, 1], [2, -1], [2, -1]]
