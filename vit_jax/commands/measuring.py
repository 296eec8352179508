"""What `evaluate` does, once its arguments are read."""

import argparse
import sys
from collections.abc import Sequence
from typing import Any

from vit_jax.checkpoints import run_folder
from vit_jax.checkpoints.load import load
from vit_jax.commands import configs
from vit_jax.config import Config
from vit_jax.data import image_list
from vit_jax.models import zoo
from vit_jax.parallel import agreement, multihost
from vit_jax.text import printable, printable_json
from vit_jax.training import evaluation, reporting, run_config

# The parts of a config that an evaluation uses.
MATTERS = ("data", "mesh", "batch_size", "eval_batch_size", "objective", "evaluators", "checkpoint")
_USE = "evaluate measures the model in the checkpoint and"


def run(options: argparse.Namespace, overrides: Sequence[str]) -> int:
    """Measures a checkpoint and prints its metrics. Returns the exit code."""
    multihost.initialize()
    notes: list[str] = []
    if options.images or options.labels:
        given = [*overrides, *(("--config",) if options.config else ()), *(options.only or ())]
        if given:
            raise ValueError(f"{given[0]} does not apply to --images and --labels: leave it out")
        shown, metrics = _on_images(options)
    else:
        with agreement.Meeting():
            configs.check_used(overrides, MATTERS, command=_USE)
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
