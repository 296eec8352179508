"""Datasets of TensorFlow Datasets, prepared as array_record, read without TensorFlow."""

import difflib
from typing import Any

from vit_jax.data.record import Record


class TfdsSource:
    """A split of an image classification dataset; sub-splits such as `train[:99%]` too."""

    def __init__(self, dataset: str, *, split: str, data_dir: str = "") -> None:
        """Raises ValueError where the dataset is not there, or holds no labelled images."""
        import tensorflow_datasets as tfds

        builder = _prepared(dataset, data_dir)
        features = builder.info.features
        if "image" not in features or "label" not in features:
            raise ValueError(f"config.data.name {dataset} has no features named image and label")
        try:
            self._records: Any = builder.as_data_source(
                split=split, decoders={"image": tfds.decode.SkipDecoding()}
            )
        except NotImplementedError:
            raise ValueError(
                f"{dataset} is prepared in {builder.data_dir}, but not as array_record: convert it"
                f" once with `tfds convert_format --dataset_version_dir={builder.data_dir}"
                " --out_file_format=array_record` (needs tensorflow, reading it does not)"
            ) from None
        except (ValueError, KeyError) as error:
            raise ValueError(
                f"{dataset} has no split {split!r}: there are {', '.join(builder.info.splits)}"
            ) from error
        self.name = f"{dataset} {split}"
        self.class_names: tuple[str, ...] = tuple(features["label"].names)

    def __len__(self) -> int:
        return len(self._records)

    def read(self, index: int) -> Record:
        example = self._records[index]
        return Record(example["image"], int(example["label"]), f"{self.name}[{index}]")


def tfds_splits(dataset: str, *, data_dir: str = "") -> tuple[str, ...]:
    return tuple(_prepared(dataset, data_dir).info.splits)


def _prepared(dataset: str, data_dir: str) -> Any:
    """The builder of a dataset that is prepared. Raises ValueError."""
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
    except Exception as error:  # versions, configurations, folders: each has errors of its own
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
        " (needs tensorflow, reading it does not)"
    )
