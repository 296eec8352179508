"""Batches as pure functions of (seed, step), decoded ahead by threads.

Step s of a run trains on a global batch, of which every process makes its own rows. The images,
their crops and augmentations depend only on the seed and the sample index, which is
`s * batch_size + row`. So the step is the whole data position: a resume is exact on any number of
processes and threads.
"""

import dataclasses
import functools
import threading
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from vit_jax.data import reading
from vit_jax.data.arrays import ArraySource
from vit_jax.data.augment.contract import HostAugmentation
from vit_jax.data.bad_images import BadImages
from vit_jax.data.batches import Batch, Batches, Pool
from vit_jax.data.counter import NUMBERS, draw_at, shuffled_ids
from vit_jax.data.preprocess import EvalTransform, TrainTransform
from vit_jax.data.record import Source, is_multi_label
from vit_jax.data.sampling import Order

# The arrays of a batch that can go to the devices.
TRAIN_ARRAYS = ("image", "label", "sample_index")
EVAL_ARRAYS = (*TRAIN_ARRAYS, "mask")

# (crop uint8 (H, W, C), number of the image in its split) -> uint8 (H, W, C)
Version = Callable[[np.ndarray, int], np.ndarray]
# (step, ids int64 (R,), sample indices (R,)) -> arrays. The id of a broken image is replaced.
Make = Callable[[int, np.ndarray, np.ndarray], Batch]


def example_shapes(
    image_size: tuple[int, int], channels: int, *, several_of: int = 0
) -> dict[str, tuple[tuple[int, ...], str]]:
    """Shape and dtype of one example in each of `EVAL_ARRAYS`.

    `several_of`: the number of classes, where an image may have several of them; else 0.
    """
    return {
        "image": ((*image_size, channels), "uint8"),
        "label": ((several_of,), "uint8") if several_of else ((), "int32"),
        "sample_index": ((2,), "uint32"),
        "mask": ((), "bool"),
    }


def train_batches(
    source: Source,
    transform: TrainTransform,
    *,
    seed: int,
    batch_size: int,
    num_steps: int,
    start_step: int = 0,
    rows: slice | np.ndarray = slice(None),
    order: Order | None = None,
    size: Callable[[int], tuple[int, int]] | None = None,
    repeats: int = 1,
    threads: int = 8,
    prefetch: int = 2,
    max_bad: float = 0.001,
    bad: BadImages | None = None,
    labelled: bool = True,
    tables: Mapping[str, np.ndarray] | None = None,
    interrupted: Callable[[float], bool] = lambda waited: False,
) -> Batches:
    """The batches of steps `start_step` to `num_steps - 1` of an endless shuffled stream.

    `rows`, ascending, are this process's part of the global `batch_size`; unset: all. Epochs follow
    each other without a gap, each a new permutation of the source, or there is another `order`
    (`sampling`).
    Images have the size (H, W) of `transform`, or the `size` of each step. A batch holds, for R
    rows: image uint8 (R, H, W, C), label int32 (R,), or uint8 (R, K) if images have several, id
    int64 (R,) index in the source, and sample_index uint32 (R, 2), the high and the low word; and
    of each of `tables`, which has a row for every image of the source, the rows of its images.

    With `repeats`, as many samples in a row are of the same image, each with its own numbers.

    A broken image is added to `bad` and replaced by another, which its sample index determines.
    Unless `labelled`, a label may be UNKNOWN.
    """
    bad = bad or BadImages(size=len(source), max_bad=max_bad)
    pool = Pool(threads)

    def make(step: int, ids: np.ndarray, at: np.ndarray) -> Batch:
        cut = dataclasses.replace(transform, size=size(step)) if size else transform
        image, label = _made(source, cut, ids, pool, at=at, seed=seed, bad=bad, labels=labelled)
        return {"image": image, "label": label}

    return stream(
        make,
        pool=pool,
        batch_size=batch_size,
        num_steps=num_steps,
        start_step=start_step,
        rows=rows,
        order=order or functools.partial(shuffled_ids, size=len(source), seed=seed),
        repeats=repeats,
        prefetch=prefetch,
        bad=bad,
        tables=tables,
        interrupted=interrupted,
    )


def stream(
    make: Make,
    *,
    pool: Pool,
    batch_size: int,
    num_steps: int,
    start_step: int,
    rows: slice | np.ndarray,
    order: Order,
    repeats: int,
    prefetch: int,
    bad: BadImages,
    tables: Mapping[str, np.ndarray] | None = None,
    interrupted: Callable[[float], bool] = lambda waited: False,
) -> Batches:
    """Batches of what `make` makes, with id, sample_index and `tables` as in `train_batches`."""

    def batch(step: int) -> Batch:
        indices = _indices(step, batch_size, rows)
        ids = order(indices // repeats)
        made = make(step, ids, indices)
        looked_up = {name: table[ids] for name, table in (tables or {}).items()}
        return made | {"id": ids, "sample_index": _words(indices)} | looked_up

    return Batches(
        batch,
        start=start_step,
        stop=num_steps,
        pool=pool,
        prefetch=prefetch,
        bad=bad,
        interrupted=interrupted,
    )


def _made(
    source: Source,
    transform: TrainTransform,
    ids: np.ndarray,
    pool: Pool,
    *,
    at: np.ndarray,
    seed: int,
    bad: BadImages,
    labels: bool,
) -> tuple[np.ndarray, np.ndarray]:
    """Images (R, H, W, C), cropped and augmented, and labels of the ids (R,).

    `at` (R,) are the sample indices. The id of a broken image is replaced in `ids`. With `labels`
    every image must have a label.
    """
    numbers = draw_at("crop", at, seed=seed)
    if isinstance(source, ArraySource):
        image = transform.batch(source.gather(ids, channels=transform.channels), numbers)
        return _augmented(image, transform, pool, at=at, seed=seed), source.labels[ids]
    image = np.empty((len(ids), *transform.size, transform.channels), np.uint8)
    label = _no_labels(source, len(ids))
    draws = augmentation_numbers(transform.augmentations, at, seed=seed)

    def load(row: int) -> None:
        pixels, label[row], ids[row] = reading.read_or_replace(
            source,
            int(ids[row]),
            transform.decode,
            sample_index=int(at[row]),
            seed=seed,
            bad=bad,
            labelled=labels,
        )
        image[row] = transform.augmented(transform(pixels, numbers[row]), draws[:, row])

    pool.run(load, len(ids))
    return image, label


def _augmented(
    images: np.ndarray, transform: TrainTransform, pool: Pool, *, at: np.ndarray, seed: int
) -> np.ndarray:
    """The crops (R, H, W, C) of the samples with the indices `at` (R,), augmented."""
    if not transform.augmentations:
        return images
    draws = augmentation_numbers(transform.augmentations, at, seed=seed)
    changed = np.empty_like(images)

    def augment(row: int) -> None:
        changed[row] = transform.augmented(images[row], draws[:, row])

    pool.run(augment, len(images))
    return changed


def augmentation_numbers(
    augmentations: Sequence[HostAugmentation], indices: np.ndarray, *, seed: int
) -> np.ndarray:
    """The random numbers of A augmentations for the samples (R,): float64 (A, R, NUMBERS)."""
    numbers = np.empty((len(augmentations), len(indices), NUMBERS))
    for row, augmentation in enumerate(augmentations):
        numbers[row] = draw_at(f"augment {augmentation.stream}", indices, seed=seed)
    return numbers


def eval_batches(
    source: Source,
    transform: EvalTransform,
    *,
    batch_size: int,
    rows: slice | np.ndarray = slice(None),
    threads: int = 8,
    prefetch: int = 2,
    max_bad: float = 0.001,
    bad: BadImages | None = None,
    labelled: bool = True,
    versions: Sequence[Version] = (),
    interrupted: Callable[[float], bool] = lambda waited: False,
) -> Batches:
    """Every example once, in order, in batches of the full size.

    Like `train_batches`, with `mask` bool (R,), and with the id as sample_index. The mask is False
    for padding of the last batch (image 0, label 0, id -1), for a broken image (image 0, its label
    and id), and, if `labelled`, for an image without a label (image 0, label -1, its id).
    Every process gets the same number of batches. With `versions`, each batch comes once for each
    version of its images, in turn, and the images are decoded once.
    """
    bad = bad or BadImages(size=len(source), max_bad=max_bad)
    pool = Pool(threads)

    def batch(step: int) -> Batch:
        ids = _indices(step, batch_size, rows)
        mask = ids < len(source)
        ids[~mask] = -1
        image = np.zeros((len(ids), *transform.size, transform.channels), np.uint8)
        label = _no_labels(source, len(ids))

        def load(row: int) -> None:
            pixels, label[row] = reading.read(
                source,
                int(ids[row]),
                transform.decode,
                bad=bad,
                unlabelled="skip" if labelled else "read",
            )
            mask[row] = pixels is not None
            if pixels is not None:
                image[row] = transform(pixels)

        pool.run(load, int(mask.sum()))
        words = _words(ids)
        return {"image": image, "label": label, "id": ids, "sample_index": words, "mask": mask}

    steps = -(-len(source) // batch_size)
    return Batches(
        _in_versions(batch, versions, pool, keep=prefetch + 1) if versions else batch,
        start=0,
        stop=steps * max(1, len(versions)),
        pool=pool,
        prefetch=prefetch,
        bad=bad,
        interrupted=interrupted,
    )


def _in_versions(
    batch: Callable[[int], Batch], versions: Sequence[Version], pool: Pool, *, keep: int
) -> Callable[[int], Batch]:
    """From a step to a batch: each batch in all versions, then the next. `keep` batches are kept.

    Several threads call it for the next steps, so a lock lets only one of them decode a batch.
    """
    kept, lock = functools.lru_cache(maxsize=keep)(batch), threading.Lock()

    def changed(step: int) -> Batch:
        with lock:
            original = kept(step // len(versions))
        version, image = versions[step % len(versions)], original["image"].copy()
        (rows,) = np.nonzero(original["mask"])

        def change(place: int) -> None:
            row = rows[place]
            image[row] = version(image[row], int(original["id"][row]))

        pool.run(change, len(rows))
        return original | {"image": image}

    return changed


def _indices(step: int, batch_size: int, rows: slice | np.ndarray) -> np.ndarray:
    """The indices int64 (R,) of some rows of the batch of a step."""
    return step * batch_size + np.arange(batch_size)[rows]


def _no_labels(source: Source, count: int) -> np.ndarray:
    """Zeros for the labels of `count` images: int32 (count,), or uint8 (count, K)."""
    if is_multi_label(source):
        return np.zeros((count, len(source.class_names)), np.uint8)
    return np.zeros(count, np.int32)


def _words(indices: np.ndarray) -> np.ndarray:
    """int64 (R,) as uint32 (R, 2), high and low word: integers of JAX have 32 bits by default."""
    return np.stack([indices >> 32, indices & 0xFFFFFFFF], axis=-1).astype(np.uint32)
