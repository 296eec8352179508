"""`evaluate`: measures a checkpoint of a run, or a released file, on held-out images."""

import argparse
import pathlib
from collections.abc import Sequence

from vit_jax.commands import arguments
from vit_jax.commands.arguments import checkpoint_step, size

CONFUSION_IN_JSON = pathlib.Path()  # --confusion without a file


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--workdir", required=True, help="folder of the run, or a released file")
    parser.add_argument(
        "--config",
        metavar="FILE[:ARGUMENT]",
        help="for a released file: the recipe with data and evaluators",
    )
    parser.add_argument(
        "--only",
        action="append",
        metavar="NAME",
        help="only this evaluator; repeatable",
    )
    parser.add_argument("--images", type=pathlib.Path, help="measure on the images in this folder")
    parser.add_argument(
        "--labels",
        type=pathlib.Path,
        help="classes of --images, by number or name: JSON {NAME: CLASS}, or lines NAME CLASS;"
        " unset: --images has folders named by class",
    )
    parser.add_argument(
        "--real",
        type=pathlib.Path,
        metavar="FILE",
        help="classes of --images, which are validation images of ImageNet: real.json of ReaL",
    )
    arguments.add_classes(parser)
    parser.add_argument(
        "--image-size",
        type=size,
        help="HEIGHT or HEIGHT,WIDTH of the model, with --images or for a released file",
    )
    parser.add_argument(
        "--orientation",
        action="store_true",
        help="with --images: turn images as their EXIF orientation says, as predict does",
    )
    parser.add_argument(
        "--step", type=checkpoint_step, default="latest", help="latest, best, or a number"
    )
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    parser.add_argument(
        "--corrupt",
        metavar="NAMES",
        help="measure on corrupted images too, at severities 1 to 5: all, or some of noise, blur,"
        " defocus, contrast, jpeg, pixelate, joined by commas",
    )
    _add_answers(parser)
    parser.set_defaults(config_overrides=True)
    parser.epilog = arguments.HINT


def _add_answers(parser: argparse.ArgumentParser) -> None:
    """Adds the options that say more about the answer for each image."""
    parser.add_argument(
        "--predictions",
        type=pathlib.Path,
        metavar="FILE",
        help="write the 5 most probable classes of each image, .csv or .parquet",
    )
    parser.add_argument(
        "--per-class", action="store_true", help="print the top-1 of each class too"
    )
    parser.add_argument(
        "--confusion",
        type=pathlib.Path,
        nargs="?",
        const=CONFUSION_IN_JSON,
        metavar="FILE.csv",
        help="write the confusion matrix; with --json it is in the JSON too, and needs no FILE",
    )


def run(options: argparse.Namespace, overrides: Sequence[str]) -> int:
    """Evaluate a checkpoint exactly, on any number of devices.

    A run is measured by the evaluators of its config, or by some of them (--only), on the data of
    its config. Options such as --config.data.eval_split=test change the config. A released file
    needs a recipe, --config. With --images any checkpoint is measured on the images of a folder:
    in folders named by class, or with --labels. A name may be that of the model's class, its
    number, or for ImageNet-1k a synset or a word. The model may have classes without images.

    --predictions, --per-class and --confusion say more about the answers for each image. Where a
    run keeps an average of the parameters, they are the answers of the average.
    """
    from vit_jax.commands import measuring

    return measuring.run(options, overrides)
