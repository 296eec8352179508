"""Reads datasets of TensorFlow Datasets, prepared as array_record, without TensorFlow."""

import concurrent.futures
import difflib
import errno
import logging
import os
from collections.abc import Sequence
from typing import Any

import numpy as np
from etils import epath

from vit_jax.data import identity
from vit_jax.data.record import UNKNOWN, Label, LabelError, Record

_LOG = logging.getLogger(__name__)
_THREADS = 16  # they wait for the disk
SAMPLED = 256  # examples whose labels are looked at before a split is used


class TfdsSource:
    """A split of an image classification dataset; sub-splits such as `train[:99%]` too."""

    def __init__(self, dataset: str, *, split: str, data_dir: str = "") -> None:
        """Raises ValueError if the dataset is not prepared, or has no images with labels."""
        import tensorflow_datasets as tfds

        builder = _prepared(dataset, data_dir)
        self._key, self.class_names, self.multi_label = _labels(dataset, builder.info.features)
        try:
            self._records: Any = builder.as_data_source(
                split=split, decoders={"image": tfds.decode.SkipDecoding()}
            )
        except NotImplementedError:
            raise ValueError(
                f"{dataset} is prepared in {builder.data_dir}, but not as array_record: convert it"
                f" once with `tfds convert_format --dataset_version_dir={builder.data_dir}"
                " --out_file_format=array_record` (this needs tensorflow, reading does not)"
            ) from None
        except (ValueError, KeyError) as error:
            raise ValueError(
                f"{dataset} has no split {split!r}: there are {', '.join(builder.info.splits)}"
            ) from error
        self.name = f"{dataset} {split}"
        self._full_name = f"{builder.info.full_name} {split}"
        self._files = builder.info.splits[split].file_instructions

    def __len__(self) -> int:
        return len(self._records)

    def read(self, index: int) -> Record:
        """Raises OSError if the file cannot be read, LabelError for a label that is not a class."""
        path = f"{self.name}[{index}]"
        try:
            example = self._records[index]
        except Exception as error:  # array_record and TFDS define no type of error
            raise OSError(errno.EIO, " ".join(str(error).split()), path) from error
        if not self._was_read(example):
            raise OSError(errno.EIO, "its record is damaged", path)
        return Record(example["image"], self._label(example[self._key], path), path)

    @property
    def labels(self) -> np.ndarray:
        """Reads all records. Raises LabelError as `read`, and ValueError for a damaged record."""
        _LOG.warning("%s: reading the labels of all %d records", self.name, len(self))
        pieces = [range(i, min(i + SAMPLED, len(self))) for i in range(0, len(self), SAMPLED)]
        with concurrent.futures.ThreadPoolExecutor(_THREADS) as pool:
            found = list(pool.map(self._labels_of, pieces))
        return np.concatenate(found)

    def _labels_of(self, ids: Sequence[int]) -> np.ndarray:
        """The `labels` of these images. Raises ValueError if a record cannot be read."""
        examples = self._examples(ids)
        if damaged := [
            i for i, example in zip(ids, examples, strict=True) if not self._was_read(example)
        ]:
            raise ValueError(
                f"{self.name}[{damaged[0]}] has no label, because its record is damaged: restore"
                " the dataset, or use nothing that needs the labels of all images, such as balanced"
                " sampling, config.data.per_class or a few-shot evaluation"
            )
        labels = [
            self._label(example[self._key], f"{self.name}[{index}]")
            for index, example in zip(ids, examples, strict=True)
        ]
        return np.array(labels, np.uint8 if self.multi_label else np.int32)

    def sample(self) -> list[int]:
        """Labels of at most `SAMPLED` examples, spread over the split.

        Raises LabelError for a label that is not a class, ValueError if none can be read.
        """
        count = min(len(self), SAMPLED)
        ids = [len(self) * i // count for i in range(count)]
        examples = self._examples(ids)
        if not any(map(self._was_read, examples)):
            raise ValueError(f"{self.name} cannot be read: its records are damaged")
        found = [
            self._label(example[self._key], f"{self.name}[{index}]")
            for index, example in zip(ids, examples, strict=True)
            if self._was_read(example)
        ]
        return [label for label in found if isinstance(label, int)]

    def identity(self) -> identity.Identity:
        """The summary of the shards that the split reads: names, sizes and ranges of examples."""
        parts = {}
        for shard in self._files:
            path = epath.Path(shard.filename)
            local = "://" not in os.fspath(path)
            size = (
                identity.fingerprint(os.fspath(path), read_ends=True)
                if local
                else path.stat().length
            )
            parts[f"{path.name}[{shard.skip}:{shard.skip + shard.take}]"] = identity.Part(
                examples=shard.take, digest=identity.digest([str(size)])
            )
        return identity.identify(
            "tfds", name=self._full_name, class_names=self.class_names, parts=parts
        )

    def _examples(self, ids: Sequence[int]) -> list[dict[str, Any]]:
        """Raises ValueError if a file cannot be read."""
        try:
            examples: list[dict[str, Any]] = self._records.__getitems__(list(ids))
        except Exception as error:  # as in `read`
            raise ValueError(
                f"{self.name} cannot be read: {' '.join(str(error).split())}"
            ) from error
        return examples

    def _was_read(self, example: dict[str, Any]) -> bool:
        """Whether a record was read: for a damaged file, TFDS returns None instead of an error."""
        return example["image"] is not None and example[self._key] is not None

    def _label(self, value: Any, path: str) -> Label:
        if self.multi_label:
            row = np.zeros(len(self.class_names), np.uint8)
            for label in value:
                row[self._class(label, path, least=0)] = 1
            return row
        return self._class(value, path, least=UNKNOWN)

    def _class(self, value: Any, path: str, *, least: int) -> int:
        label = int(value)
        if least <= label < len(self.class_names):
            return label
        raise LabelError(
            f"{path} has the label {label}, but there are {len(self.class_names)} classes:"
            " prepare the dataset again with labels that count from 0"
        )


def _labels(dataset: str, features: Any) -> tuple[str, tuple[str, ...], bool]:
    """The feature with the labels, the names of its classes, and whether an image has several.

    Raises ValueError unless there are images with labels of known classes.
    """
    from tensorflow_datasets import features as kinds

    known = features if isinstance(features, kinds.FeaturesDict) else {}
    key = next((name for name in ("label", "labels") if name in known), "")
    if "image" not in known or not key:
        raise ValueError(f"config.data.name {dataset} has no features named image and label")
    image, label = known["image"], known[key]
    if not isinstance(image, kinds.Image):
        raise ValueError(f"the images of {dataset} are {_described(image)}, not encoded images")
    several = isinstance(label, kinds.Sequence) and isinstance(label.feature, kinds.ClassLabel)
    one = label.feature if several else label
    if isinstance(one, kinds.ClassLabel) and one.num_classes:
        return key, tuple(one.names), several
    if isinstance(label, kinds.Scalar) and np.dtype(label.np_dtype) == np.bool_:
        return key, ("0", "1"), False  # the only numbers without names whose range is known
    raise ValueError(
        f"the labels of {dataset} are {_described(label)}, not one or several of a known number of"
        " classes for each image: prepare it with the feature ClassLabel"
    )


def _described(feature: Any) -> str:
    return f"a {type(feature).__name__} ({' '.join(repr(feature).split())[:80]})"


def tfds_splits(dataset: str, *, data_dir: str = "") -> tuple[str, ...]:
    return tuple(_prepared(dataset, data_dir).info.splits)


def _prepared(dataset: str, data_dir: str) -> Any:
    """The builder of a dataset. Raises ValueError unless the dataset is prepared."""
    import tensorflow_datasets as tfds

    if not dataset:
        raise ValueError("config.data.name is empty: name a dataset, such as imagenet2012")
    try:
        builder = tfds.builder(dataset, data_dir=data_dir or None)
    except tfds.core.DatasetNotFoundError:
        place = f" and {data_dir} holds none of that name" if data_dir else ""
        known = tfds.list_builders(with_community_datasets=False)
        close = difflib.get_close_matches(dataset.split(":")[0], set(known), n=1)
        hint = f"did you mean {close[0]!r}?" if close else "tfds.list_builders() names all"
        raise ValueError(f"tfds has no dataset {dataset!r}{place}: {hint}") from None
    except Exception as error:  # versions, configurations and folders raise errors of many types
        reason = " ".join(str(error.__cause__ or error).split())[:300]
        raise ValueError(f"config.data.name {dataset}: {reason}") from error
    if not builder.info.splits:
        raise ValueError(
            f"{dataset} is not prepared in {builder.data_dir}: {_remedy(dataset, data_dir)}"
        )
    return builder


def _remedy(dataset: str, data_dir: str) -> str:
    folder = f" --data_dir={data_dir}" if data_dir else ""
    return (
        f"prepare it once with `tfds build {dataset} --file_format=array_record{folder}`"
        " (this needs tensorflow, reading does not)"
    )
