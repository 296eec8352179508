"""`evaluate`: measures a checkpoint of a run, or a released file, on held-out images."""

import argparse
import pathlib
import sys
from collections.abc import Sequence
from typing import Any

from vit_jax.checkpoints import run_folder
from vit_jax.checkpoints.load import load
from vit_jax.commands import config as config_command
from vit_jax.commands import configs
from vit_jax.commands.convert import size
from vit_jax.config import Config
from vit_jax.data import image_list
from vit_jax.models import zoo
from vit_jax.parallel import agreement, multihost
from vit_jax.text import printable, printable_json
from vit_jax.training import evaluation, reporting, run_config

# The parts of a config that an evaluation uses.
MATTERS = ("data", "mesh", "batch_size", "eval_batch_size", "objective", "evaluators", "checkpoint")


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
        help="classes of --images, by number or name: JSON {NAME: CLASS}, or lines NAME CLASS",
    )
    parser.add_argument("--image-size", type=size, help="HEIGHT or HEIGHT,WIDTH, with --images")
    parser.add_argument(
        "--orientation",
        action="store_true",
        help="with --images: turn images as their EXIF orientation says, as predict does",
    )
    parser.add_argument(
        "--step", type=checkpoint_step, default="latest", help="latest, best, or a number"
    )
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    parser.set_defaults(config_overrides=True)
    parser.epilog = config_command.HINT


def run(options: argparse.Namespace, overrides: Sequence[str]) -> int:
    """Evaluate a checkpoint exactly, on any number of devices.

    A run is measured by the evaluators of its config, or by some of them (--only), on the data of
    its config. Options such as --config.data.eval_split=test change the config. A released file
    needs a recipe, --config. With --images and --labels any checkpoint is measured on the images
    of a folder.
    """
    multihost.initialize()
    notes: list[str] = []
    if options.images or options.labels:
        given = [*overrides, *(("--config",) if options.config else ()), *(options.only or ())]
        if given:
            raise ValueError(f"{given[0]} does not apply to --images and --labels: leave it out")
        shown, metrics = _on_images(options)
    else:
        with agreement.Meeting():
            _check_overrides(overrides)
            config, notes = _config(options, overrides)
        if run_folder.is_run(options.workdir):
            step, metrics = evaluation.evaluate(
                config, options.workdir, which=options.step, only=options.only
            )
            shown = {"step": step}
        else:
            model = load(options.workdir, image_size=options.image_size)
            metrics = evaluation.evaluate_file(
                config, model, name=options.workdir, only=options.only
            )
            shown = {}
    if multihost.is_primary():
        for note in notes:
            print(printable(note), file=sys.stderr)
        if options.json:
            print(printable_json(shown | metrics))
        else:
            what = "".join(f", {name} {value}" for name, value in shown.items())
            print(printable(f"{options.workdir}{what}: {reporting.describe(metrics)}"))
    return 0


def _config(options: argparse.Namespace, overrides: Sequence[str]) -> tuple[Config, list[str]]:
    """The config of the run or of the recipe, and notes for the user."""
    if run_folder.is_run(options.workdir):
        if options.config:
            raise ValueError("--config is for a released file: a run has its config already")
        config, notes = configs.override(run_config.read_config(options.workdir), overrides)
    elif options.config:
        config, notes = configs.read(
            options.config, [*overrides, f"--config.init_from={options.workdir}"]
        )
    else:
        raise ValueError(
            f"{options.workdir} is not a run: name a recipe with data and evaluators, --config, or"
            " images and their classes, --images and --labels"
        )
    return config, notes


def _check_overrides(overrides: Sequence[str]) -> None:
    """Raises ValueError for a field that an evaluation does not use."""
    for text in overrides:
        field = text.partition("=")[0].partition(".")[2]
        if field.partition(".")[0] not in MATTERS:
            raise ValueError(
                f"{text}: evaluate measures the model in the checkpoint and does not use"
                f" config.{field}: it uses only {', '.join(MATTERS)}"
            )


def _on_images(options: argparse.Namespace) -> tuple[dict[str, Any], dict[str, float]]:
    """Measures on the images of a folder, with the checkpoint's own preprocessing."""
    if not (options.images and options.labels):
        raise ValueError("--images and --labels go together: give both")
    model = load(options.workdir, step=options.step, substitute=True, image_size=options.image_size)
    zoo.check_head(model.options)
    classes = model.class_names or tuple(str(i) for i in range(model.options.num_classes))
    labels = image_list.read_labels(options.labels, class_names=model.class_names)
    source = image_list.ImageListSource(options.images, labels, class_names=classes)
    assert model.preprocessing is not None
    height, width = model.preprocessing.image_size
    return {"pixels": f"{height}x{width}"}, evaluation.evaluate_model(
        model, source, orient=options.orientation
    )


def checkpoint_step(text: str) -> int | str:
    """`latest`, `best`, or the number of a step."""
    if text in ("latest", "best"):
        return text
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r}: give latest, best, or the number of a step")
    return int(text)
