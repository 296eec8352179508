"""What `figures` does, once its arguments are read."""

import argparse
import io
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence

import jax
import numpy as np
from etils import epath
from flax import nnx
from matplotlib.figure import Figure

from vit_jax.analysis import figures
from vit_jax.checkpoints.load import load
from vit_jax.commands import augmentations, configs
from vit_jax.commands.predictions import classify
from vit_jax.data import augment, opening
from vit_jax.data.preprocess import EvalTransform
from vit_jax.data.record import Record, Source
from vit_jax.images import transform_of
from vit_jax.models import zoo
from vit_jax.text import printable
from vit_jax.training import run_config
from vit_jax.workdir import place

SHOWN = 24  # images in a picture of images
COUNTED = 480  # images whose visual tokens are counted


def run(options: argparse.Namespace, overrides: Sequence[str]) -> int:
    """Draws pictures, writes them and prints their paths. Returns the exit code."""
    if options.augment:
        return _augmentations(options, overrides)
    if overrides or options.config or options.output:
        given = overrides[0] if overrides else "--config" if options.config else "-o"
        raise ValueError(f"{given} is for the pictures of augmentations: add --augment")
    if not options.workdir:
        raise ValueError("figures draws a run: give its --workdir, or --augment and --config")
    drawn = _of_run(options.workdir, load(options.workdir, step=options.step, substitute=True))
    if jax.process_index() == 0:
        for path in _write(drawn, place.folder(options.workdir) / "pictures"):
            print(printable(path))
    return 0


def _of_run(workdir: str, model: zoo.Model) -> dict[str, Figure]:
    """The pictures of a run, by name."""
    rebuild = _rebuilding(model)
    if not rebuild:
        zoo.check_head(model.options)
    config = run_config.read_config(workdir)
    source = opening.open_eval(config.data)
    transform = transform_of(model, orient=config.data.orientation)
    records = _records(source, SHOWN)
    images = np.stack([_pixels(record, transform) for record in records])
    drawn = {"curves": figures.curves(workdir)}
    if rebuild:
        drawn["reconstructions"] = figures.reconstructions(images, rebuild(images)[0])
        counts = np.zeros(model.options.vocabulary, np.int64)
        counted = _records(source, COUNTED)
        for first in range(0, len(counted), SHOWN):
            batch = [_pixels(record, transform) for record in counted[first : first + SHOWN]]
            np.add.at(counts, rebuild(np.stack(batch))[1], 1)
        drawn["codebook"] = figures.codebook(counts, images=len(counted))
    else:
        best = [row[0] for row in classify(model, top=1)(images)]
        truth = [_class_name(source, record) for record in records]
        drawn["predictions"] = figures.predictions(images, best, truth)
    return drawn | figures.first_layer(model)


def _rebuilding(model: zoo.Model) -> Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]] | None:
    """A function from images uint8 (B, H, W, C) to rebuilt pixels in [0, 1] and visual tokens.

    None if the model cannot rebuild images from visual tokens.
    """
    expects = model.preprocessing
    assert expects is not None, "the model was not loaded"
    graphdef, params = nnx.split(model)

    def call(params: nnx.State, images: jax.Array) -> tuple[jax.Array | None, jax.Array | None]:
        normal = augment.normalize(images, mean=expects.mean, std=expects.std)
        same = nnx.merge(graphdef, params)
        return same.rebuilt(normal), same.visual_tokens(normal)

    size = (1, *expects.image_size, model.options.channels)
    if None in jax.eval_shape(call, params, jax.ShapeDtypeStruct(size, np.uint8)):
        return None
    compiled = jax.jit(call)
    return lambda images: jax.device_get(compiled(params, images))


def _records(source: Source, number: int) -> list[Record]:
    """Records that are spread evenly over a split."""
    places = np.linspace(0, len(source) - 1, min(number, len(source)))
    return [source.read(int(place)) for place in places]


def _augmentations(options: argparse.Namespace, overrides: Sequence[str]) -> int:
    """Draws the augmentations of `--config`, or of the run in `--workdir`."""
    if options.config:
        config = configs.from_file(options.config, overrides)
    elif options.workdir:
        config = configs.override(run_config.read_config(options.workdir), overrides)[0]
    else:
        raise ValueError("--augment draws a recipe or a run: give --config or --workdir")
    if not (options.output or options.workdir):
        raise ValueError("--augment writes pictures: give a folder, -o FOLDER or --workdir")
    run = place.folder(options.workdir) / "pictures" if options.workdir else None
    folder = epath.Path(options.output) if options.output else run
    assert folder is not None
    drawn = augmentations.draw(config)
    if jax.process_index() == 0:
        for path in _write(drawn, folder):
            print(printable(path))
    return 0


def _write(drawn: Mapping[str, Figure], folder: epath.Path) -> Iterator[epath.Path]:
    """Writes each picture whole; yields its path. Raises ValueError if writing fails."""
    for name, figure in drawn.items():
        png = io.BytesIO()
        with warnings.catch_warnings():  # the font may lack letters of a class name
            warnings.filterwarnings("ignore", message="Glyph .* missing from")
            figure.savefig(png, format="png", dpi=120)
        path = folder / f"{name}.png"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            place.write_whole(path, png.getvalue())
        except OSError as error:
            raise ValueError(f"{path} cannot be written: {error.strerror or error}") from error
        yield path


def _pixels(record: Record, transform: EvalTransform) -> np.ndarray:
    try:
        return transform(transform.decode(record.data))
    except ValueError as error:
        raise ValueError(f"{record.path}: {error}") from error


def _class_name(source: Source, record: Record) -> str:
    label = record.label
    if isinstance(label, np.ndarray):
        return ", ".join(source.class_names[i] for i in np.flatnonzero(label)) or "no class"
    return source.class_names[label] if 0 <= label < len(source.class_names) else "unknown"
