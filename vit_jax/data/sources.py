"""The sources of images. A config chooses one, and each has its own fields."""

import dataclasses
from typing import Protocol

from vit_jax.data.arrays import EMBEDDED_SPLITS, open_embedded
from vit_jax.data.given import GivenData
from vit_jax.data.image_folder import ImageFolder
from vit_jax.data.list_data import ListData
from vit_jax.data.manifest import ManifestData
from vit_jax.data.record import Source
from vit_jax.data.tfds_source import TfdsSource, tfds_splits


class DataSource(Protocol):
    """An entry of `SOURCES`: a dataclass whose fields are its part of the config."""

    @property
    def label(self) -> str:
        """The name of the dataset in messages."""

    def splits(self, *, train_split: str) -> tuple[str, ...]:
        """The names of all splits. Raises ValueError if the dataset cannot be opened."""

    def open(self, split: str, *, train_split: str) -> Source:
        """One split; `train_split` defines the classes. Raises ValueError if it is not there."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class EmbeddedData:
    """Part of Fashion-MNIST, which ships with the package."""

    label = "the embedded dataset"

    def splits(self, *, train_split: str) -> tuple[str, ...]:
        return EMBEDDED_SPLITS

    def open(self, split: str, *, train_split: str) -> Source:
        return open_embedded(split)


@dataclasses.dataclass(frozen=True, kw_only=True)
class FolderData:
    """Images in folders named by class."""

    path: str = ""  # root of the folders

    @property
    def label(self) -> str:
        return self.path

    def splits(self, *, train_split: str) -> tuple[str, ...]:
        return ImageFolder(self.path, train_split=train_split).splits

    def open(self, split: str, *, train_split: str) -> Source:
        return ImageFolder(self.path, train_split=train_split).open(split)


@dataclasses.dataclass(frozen=True, kw_only=True)
class TfdsData:
    """A dataset of TensorFlow Datasets, prepared as array_record."""

    name: str = ""  # name and version, such as "imagenet2012:5.1.0"
    path: str = ""  # its data_dir; unset: the default of TFDS

    @property
    def label(self) -> str:
        return self.name

    def splits(self, *, train_split: str) -> tuple[str, ...]:
        return tfds_splits(self.name, data_dir=self.path)

    def open(self, split: str, *, train_split: str) -> Source:
        return TfdsSource(self.name, split=split, data_dir=self.path)


SOURCES: dict[str, type[DataSource]] = {
    "embedded": EmbeddedData,
    "image_folder": FolderData,
    "image_list": ListData,
    "manifest": ManifestData,
    "python": GivenData,
    "tfds": TfdsData,
}
