"""What pictures are drawn of: a model and images, each opened when a picture first needs it."""

import dataclasses
import functools
import os
import pathlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import numpy as np
from flax import nnx

from vit_jax.checkpoints import run_folder, s3, store
from vit_jax.checkpoints.class_lookup import Lookup
from vit_jax.checkpoints.load import load
from vit_jax.commands import image_paths, labelled_images
from vit_jax.commands.judged import Function, Judged, judge
from vit_jax.config import Config
from vit_jax.data import augment, opening
from vit_jax.data.record import UNKNOWN, Label, Record, Source
from vit_jax.images import transform_of
from vit_jax.models.zoo import Model
from vit_jax.objectives import Objective
from vit_jax.objectives.mae import MaskedAutoencoding
from vit_jax.training import datasets, run_config

SHOWN = 24  # images in a picture of many images
BATCH_BYTES = 2**28  # of the results of one batch
LARGEST_BATCH = 32

JUDGED = 1000  # images whose predictions are judged, unless the user says how many


@dataclasses.dataclass(frozen=True, kw_only=True)
class Files:
    """Image files that a user named: the parts of a `Source` that pictures use."""

    paths: tuple[str, ...]
    labels: tuple[int, ...]  # UNKNOWN for an image outside folders of classes
    class_names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.paths)

    def read(self, index: int) -> Record:
        path = self.paths[index]
        try:
            return Record(pathlib.Path(path).read_bytes(), self.labels[index], path)
        except OSError as error:
            raise ValueError(f"{path}: {error.strerror or error}") from error


@dataclasses.dataclass(frozen=True, kw_only=True)
class Subject:
    """A run or a released file, and images: those that the user named, or those of the run."""

    workdir: str
    step: store.Which = "latest"
    image_size: tuple[int, int] | None = None
    files: tuple[str, ...] = ()
    measured: int = 0  # images that a picture of numbers measures; 0: as many as it prefers
    classes: pathlib.Path | None = None  # names of the model's classes, instead of its own

    @functools.cached_property
    def model(self) -> Model:
        return load(self.workdir, step=self.step, substitute=True, image_size=self.image_size)

    @functools.cached_property
    def config(self) -> Config | None:
        """The config of the run; None for a released file.

        A converted model is None too: its config names no data of its own.
        """
        trained = run_folder.exists(s3.folder(self.workdir) / datasets.NAME)
        return run_config.read_config(self.workdir) if trained else None

    @functools.cached_property
    def objective(self) -> Objective | None:
        """The objective of the run; that of a released masked autoencoder; None if unknown."""
        if self.config:
            return self.config.objective
        return MaskedAutoencoding() if getattr(self.model.options, "decoder", None) else None

    @functools.cached_property
    def judged(self) -> Judged:
        """What the model answers for labelled images. Raises NoPicture as `judge`."""
        places = self.places(self.measured or JUDGED)
        labels = getattr(self.source, "labels", None)
        return judge(
            self.model,
            {i: self.read(i).label if labels is None else labels[i] for i in places},
            class_names=self.source.class_names if self.source else (),
            compute=self.at,
        )

    @functools.cached_property
    def source(self) -> Source | Files | None:
        """The images; None if there are none."""
        if self.files:
            paths = _expanded(self.files)
            known = labelled_images.lookup(self.model, self.classes)
            labels = _labels(paths, self.files, known)
            return Files(paths=paths, labels=labels, class_names=known.names)
        return opening.open_eval(self.config.data, labelled=False) if self.config else None

    @functools.cached_property
    def grey(self) -> bool:
        """Whether the images of the run are grey, though its model has three channels."""
        if not self.config or self.model.options.channels != 3:
            return False
        own = dataclasses.replace(self, files=())
        try:
            images = own.pixels(own.records(SHOWN))
        except ValueError:  # without its images, the channels are drawn as they are
            return False
        return bool((images == images[..., :1]).all())

    def places(self, number: int) -> list[int]:
        """Places that are spread evenly over the images; all of them if there are fewer."""
        size = len(self.source or ())
        return np.linspace(0, size - 1, min(number, size)).astype(int).tolist()

    def read(self, place: int) -> Record:
        """One image. There must be images."""
        assert self.source is not None, "the caller checks that there are images"
        return self.source.read(place)

    def records(self, number: int) -> list[Record]:
        """Records that are spread evenly over the images; all of them if there are fewer."""
        return list(map(self.read, self.places(number)))

    def pixels(self, records: list[Record]) -> np.ndarray:
        """Images as the model sees them before normalisation, uint8 (B, H, W, C)."""
        files = bool(self.files) or not self.config
        orient = files or (self.config is not None and self.config.data.orientation)
        transform = transform_of(self.model, orient=orient)
        images = []
        for record in records:
            try:
                images.append(transform(transform.decode(record.data)))
            except ValueError as error:
                raise ValueError(f"{record.path}: {error}") from error
        return np.stack(images)

    def shown(self, number: int = SHOWN) -> np.ndarray:
        """Images to draw, uint8 (B, H, W, C)."""
        return self.pixels(self.records(number))

    def class_name(self, label: Label) -> str:
        """The class of an image with this label, or its classes; "" if it is unknown."""
        names = self.source.class_names if self.source else ()
        if isinstance(label, np.ndarray):
            return ", ".join(names[i] for i in np.flatnonzero(label)) or "no class"
        return names[label] if 0 <= label < len(names) else ""

    def computing(self, function: Function) -> Callable[[np.ndarray], Any] | None:
        """A compiled function of images uint8 (B, H, W, C), with results on the host.

        None if `function` returns None for this model.
        """
        compiled, params = self._compiled(function)
        if jax.eval_shape(compiled, params, self._shape(1)) is None:
            return None
        return lambda images: jax.device_get(compiled(params, images))

    def batches(self, function: Function, *, number: int) -> Iterator[Any]:
        """The results of `function` for evenly spread images, batch by batch.

        Batches are small enough for `BATCH_BYTES` of whatever `function` computes from the model's
        attention, which is the largest array. Nothing is yielded if it returns None.
        """
        return self.at(function, self.places(number))

    def at(self, function: Function, places: Sequence[int]) -> Iterator[Any]:
        """As `batches`, for the images at these places."""
        compute, size = self.computing(function), self.batch_size
        if compute is None:
            return
        for first in range(0, len(places), size):
            yield compute(self.pixels(list(map(self.read, places[first : first + size]))))

    @property
    def batch_size(self) -> int:
        """Images whose attention weights fit into `BATCH_BYTES`."""
        _, depth, _, heads, tokens = self.model.options.listed or (0,) * 5
        of_image = 4 * depth * heads * tokens**2 or 1
        return min(max(BATCH_BYTES // of_image, 1), LARGEST_BATCH)

    def _compiled(self, function: Function) -> tuple[Callable[..., Any], nnx.State]:
        expects = self.model.preprocessing
        assert expects is not None, "the model was not loaded"
        # Parameters are an argument, so that they are not constants in the compiled program.
        graphdef, params = nnx.split(self.model)

        @jax.jit
        def compiled(params: nnx.State, images: jax.Array) -> Any:
            normal = augment.normalize(images, mean=expects.mean, std=expects.std)
            return function(nnx.merge(graphdef, params), normal)

        return compiled, params

    def _shape(self, batch: int) -> jax.ShapeDtypeStruct:
        expects = self.model.preprocessing
        assert expects is not None, "the model was not loaded"
        size = (batch, *expects.image_size, self.model.options.channels)
        return jax.ShapeDtypeStruct(size, np.uint8)


def _expanded(paths: tuple[str, ...]) -> tuple[str, ...]:
    """The image files that the user named. Raises ValueError for the first that is not there."""
    files = []
    for path, problem in image_paths.expanded(paths):
        if problem:
            raise ValueError(f"{path}: {problem}")
        files.append(path)
    return tuple(files)


def _labels(paths: Sequence[str], named: Sequence[str], known: Lookup) -> tuple[int, ...]:
    """The class of each image, UNKNOWN for all unless they are in folders of classes.

    As `evaluate --images`, FOLDER/CLASS/image.jpg, where FOLDER is one that the user named.
    """
    roots = [pathlib.Path(path) for path in named if os.path.isdir(path)]
    parts = [
        next((path.relative_to(root).parts for root in roots if path.is_relative_to(root)), ())
        for path in map(pathlib.Path, paths)
    ]
    unknown = (UNKNOWN,) * len(paths)
    if any(len(below) < 2 for below in parts):
        return unknown
    folders = tuple(dict.fromkeys(below[0] for below in parts))
    try:
        numbers = dict(zip(folders, known.find_all(folders), strict=True))
    except ValueError:
        return unknown
    return tuple(numbers[below[0]] for below in parts)
