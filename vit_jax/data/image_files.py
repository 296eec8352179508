"""Image files without labels, as a source."""

import dataclasses
import os
import pathlib

from vit_jax.data import folder_scan, identity
from vit_jax.data.record import UNKNOWN, Record


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImageFiles:
    """Some image files below a folder."""

    name: str  # the folder
    files: tuple[str, ...]  # paths relative to the folder
    class_names: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.files)

    def read(self, index: int) -> Record:
        path = os.path.join(self.name, self.files[index])
        with open(path, "rb") as file:
            return Record(file.read(), UNKNOWN, path)

    def path(self, index: int) -> str:
        return os.path.join(self.name, self.files[index])

    def sample(self) -> list[int]:
        return [UNKNOWN]

    def identity(self) -> identity.Identity:
        """The identity by names and sizes of all files."""
        paths = [os.path.join(self.name, file) for file in self.files]
        labels = [UNKNOWN] * len(paths)
        return identity.of_files("image_files", paths, labels, class_names=(), root=self.name)


def below(folder: pathlib.Path) -> ImageFiles:
    """The images anywhere below a folder, sorted. Raises ValueError if there are none."""
    if not folder.is_dir():
        raise ValueError(f"{folder} is not a folder of images")
    found = folder_scan.images(folder).images
    if not found:
        raise ValueError(f"{folder} holds no image ({' '.join(folder_scan.SUFFIXES)})")
    return ImageFiles(
        name=str(folder), files=tuple(os.path.relpath(path, folder) for path in found)
    )
