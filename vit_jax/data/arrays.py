"""Images held in memory, and the dataset that ships with the package."""

import dataclasses
import functools
import importlib.resources

import numpy as np

from vit_jax.data import identity
from vit_jax.data.decode import convert_channels
from vit_jax.data.record import Record

EMBEDDED_SPLITS = ("train", "test")
EMBEDDED_CLASSES = (
    "T-shirt/top",
    "trouser",
    "pullover",
    "dress",
    "coat",
    "sandal",
    "shirt",
    "sneaker",
    "bag",
    "ankle boot",
)


def open_embedded(split: str) -> "ArraySource":
    """Part of Fashion-MNIST: 20,000 training and 5,000 test images, 28x28 grey, 10 classes."""
    if split not in EMBEDDED_SPLITS:
        raise ValueError(f"the embedded dataset has no split {split!r}: choose train or test")
    images, labels = _embedded(split)
    return ArraySource(
        name=f"embedded {split}", class_names=EMBEDDED_CLASSES, images=images, labels=labels
    )


@functools.cache
def _embedded(split: str) -> tuple[np.ndarray, np.ndarray]:
    """Images and labels, unpacked once per process and never to be changed."""
    archive = importlib.resources.files("vit_jax.data") / "embedded" / "fashion_mnist.npz"
    with archive.open("rb") as file, np.load(file) as arrays:
        images, labels = arrays[f"x_{split}"], arrays[f"y_{split}"].astype(np.int32)
    for array in (images, labels):
        array.setflags(write=False)
    return images, labels


@dataclasses.dataclass(frozen=True, kw_only=True)
class ArraySource:
    """Images of one size in memory; the pipeline gathers whole batches at once."""

    name: str
    class_names: tuple[str, ...]
    images: np.ndarray  # uint8 (N, H, W) or (N, H, W, C)
    labels: np.ndarray  # int32 (N,)

    def __len__(self) -> int:
        return len(self.images)

    def read(self, index: int) -> Record:
        return Record(self.images[index], int(self.labels[index]), f"{self.name}[{index}]")

    def sample(self) -> list[int]:
        return self.labels.tolist()

    def identity(self) -> identity.Identity:
        content: list[str | bytes] = [str(self.images.shape)]
        content += [self.images.tobytes(), self.labels.tobytes()]
        part = identity.Part(examples=len(self), digest=identity.digest(content))
        return identity.identify("arrays", class_names=self.class_names, parts={self.name: part})

    def gather(self, ids: np.ndarray, *, channels: int = 3) -> np.ndarray:
        """The images `ids` as uint8 (len(ids), H, W, channels)."""
        images = self.images[ids]
        return convert_channels(
            images if images.ndim == 4 else images[..., None], channels=channels
        )
