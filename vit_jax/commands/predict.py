"""`predict`: prints the most probable classes of image files."""

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence

import jax
import numpy as np
from flax import nnx

from vit_jax.checkpoints.load import load
from vit_jax.commands.convert import count
from vit_jax.commands.evaluate import checkpoint_step
from vit_jax.data import augment, preprocess
from vit_jax.images import read_pixels, transform_of
from vit_jax.models import zoo
from vit_jax.models.zoo import Model
from vit_jax.text import printable, printable_json

BATCH = 32


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("images", nargs="+", metavar="IMAGE", help="JPEG, PNG or WebP files")
    parser.add_argument("--workdir", required=True, help="folder of a run, or a released file")
    parser.add_argument(
        "--step", type=checkpoint_step, default="latest", help="latest, best, or a number"
    )
    parser.add_argument(
        "--top", type=count, default=5, help="number of classes to show for each image"
    )
    parser.add_argument(
        "--json", action="store_true", help="one JSON object per image, each on a line"
    )


def run(options: argparse.Namespace, _: Sequence[str]) -> int:
    """Show the most probable classes of images."""
    model = load(options.workdir, step=options.step, substitute=True)
    failures = 0
    for path, result in predict(model, options.images, top=options.top):
        if isinstance(result, str):
            print(printable(f"vit_jax: {path}: {result}"), file=sys.stderr)
            failures += 1
        elif options.json:
            classes = [{"class": name, "probability": p} for name, p in result]
            print(printable_json({"image": path, "classes": classes}))
        else:
            shown = ", ".join(f"{name} {100 * p:.1f}%" for name, p in result)
            print(printable(f"{path}: {shown}"))
    return 2 if failures else 0


def predict(
    model: Model, paths: Sequence[str], *, top: int
) -> Iterator[tuple[str, list[tuple[str, float]] | str]]:
    """For every path the `top` pairs (class, probability), or a message if the file is bad."""
    wanted = model.preprocessing
    assert wanted is not None, "the model was not loaded"
    transform = transform_of(model)
    best = classify(model, top=top)
    for first in range(0, len(paths), BATCH):
        chunk = paths[first : first + BATCH]
        read = [_read(path, transform) for path in chunk]
        batch = np.zeros((min(BATCH, len(paths)), *wanted.image_size, transform.channels), np.uint8)
        for row, image in enumerate(read):
            if not isinstance(image, str):
                batch[row] = image
        for path, image, classes in zip(chunk, read, best(batch), strict=False):
            yield path, image if isinstance(image, str) else classes


def classify(model: Model, *, top: int) -> Callable[[np.ndarray], list[list[tuple[str, float]]]]:
    """A function from images uint8 (B, H, W, C) to the `top` pairs (class, probability) of each."""
    zoo.check_head(model.options)
    wanted = model.preprocessing
    assert wanted is not None, "the model was not loaded"
    names = model.class_names or tuple(str(i) for i in range(model.options.num_classes))
    # Parameters are an argument, so that they are not constants in the compiled program.
    graphdef, params = nnx.split(model)

    @jax.jit
    def probabilities(params: nnx.State, images: jax.Array) -> jax.Array:
        normal = augment.normalize(images, mean=wanted.mean, std=wanted.std)
        return jax.nn.softmax(nnx.merge(graphdef, params)(normal))

    def best(images: np.ndarray) -> list[list[tuple[str, float]]]:
        rows = np.asarray(probabilities(params, images))
        order = np.argsort(-rows, axis=1, kind="stable")[:, :top]
        return [
            [(names[i], float(row[i])) for i in best] for row, best in zip(rows, order, strict=True)
        ]

    return best


def _read(path: str, transform: preprocess.EvalTransform) -> np.ndarray | str:
    """Pixels for the model, uint8 (H, W, C), or a message if the file is bad."""
    try:
        return read_pixels(path, transform)
    except ValueError as error:
        return str(error)
