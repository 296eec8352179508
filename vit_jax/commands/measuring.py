"""What `evaluate` does, once its arguments are read."""

import argparse
import dataclasses
import math
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from vit_jax import schema
from vit_jax.checkpoints import exported, imagenet
from vit_jax.checkpoints.load import load
from vit_jax.commands import answer_files, configs, corruption_table, labelled_images
from vit_jax.commands.evaluate import CONFUSION_IN_JSON
from vit_jax.config import Config
from vit_jax.errors import RunFailed
from vit_jax.evaluators import HELD_OUT, Evaluator
from vit_jax.evaluators.answers import PerImage, Recorder
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
    recorder = _recorder(options)
    more = corruption_table.evaluator(options.corrupt) if options.corrupt else None
    also = {corruption_table.NAME: more} if more else {}
    if options.images or options.labels or options.real:
        named = [f"--{name}" for name in ("config", "only") if getattr(options, name)]
        if given := [*overrides, *named]:
            raise ValueError(f"{given[0]} does not apply to --images: leave it out")
        shown, metrics = _on_images(options, recorder, also)
    else:
        with agreement.Meeting():
            configs.check_used(overrides, MATTERS, command=_USE)
            config, notes = _config(options, overrides)
        shown, metrics = _with_config(options, config, recorder, also)
    if wrong := [name for name, value in metrics.items() if not math.isfinite(value)]:
        raise RunFailed(
            f"{wrong[0]} is {metrics[wrong[0]]}: the outputs of the model are not finite numbers;"
            " it is damaged or has diverged"
        )
    if multihost.is_primary():
        for note in notes:
            print(printable(note), file=sys.stderr)
        answers = recorder.result() if recorder else None
        _report(options, shown, metrics, answers)
        if more and not options.json:
            print("\n".join(corruption_table.lines(metrics, more)))
        if answers:  # last: if they cannot be written, the metrics are not lost
            _write(options, answers)
    return 0


def _recorder(options: argparse.Namespace) -> Recorder | None:
    """Keeps the answers for each image if an option needs them.

    Raises ValueError if a file cannot be written where an option says.
    """
    matrix = options.confusion if options.confusion != CONFUSION_IN_JSON else None
    if options.confusion and not (matrix or options.json):
        raise ValueError("--confusion needs a FILE.csv to write the matrix to, or --json")

    def check() -> None:
        every = (answer_files.CSV, answer_files.PARQUET)
        answer_files.check_target(options.predictions, option="--predictions", suffixes=every)
        answer_files.check_target(matrix, option="--confusion", suffixes=every[:1])

    multihost.primary_first("files of evaluate", check)
    wanted = options.predictions or options.per_class or options.confusion
    return Recorder() if wanted else None


def _with_config(
    options: argparse.Namespace,
    config: Config,
    recorder: Recorder | None,
    also: Mapping[str, Evaluator],
) -> tuple[dict[str, Any], dict[str, float]]:
    """Measures a run or a released file by the evaluators of a config, on the config's data.

    If there are evaluators `also`, the only other ones are those of --only, or else `held_out`.
    """
    only = options.only
    if also:
        only = [*(only or [name for name in config.evaluators if name == HELD_OUT]), *also]
        evaluators = schema.FrozenMapping({**config.evaluators, **also})
        config = dataclasses.replace(config, evaluators=evaluators)
    if exported.is_trained(options.workdir):
        step, metrics = evaluation.evaluate(
            config, options.workdir, which=options.step, only=only, recorder=recorder
        )
        return {"step": step}, metrics
    model = load(options.workdir, step=options.step, image_size=options.image_size)
    if options.classes:
        model.class_names = labelled_images.lookup(model, options.classes).names
    return {}, evaluation.evaluate_file(
        config, model, name=options.workdir, only=only, recorder=recorder
    )


def _report(
    options: argparse.Namespace,
    shown: Mapping[str, Any],
    metrics: Mapping[str, float],
    answers: PerImage | None,
) -> None:
    """Prints the metrics, and what the options want of the answers."""
    more = _answers(options, answers) if answers else {}
    if options.json:
        print(printable_json({**shown, **metrics, **more}))
        return
    what = "".join(f", {name} {value}" for name, value in shown.items())
    in_line = corruption_table.without(metrics) if options.corrupt else dict(metrics)
    line = reporting.describe(in_line)
    print(printable(f"{options.workdir}{what}: {line}"))
    if "per_class" in more:
        for line in answer_files.per_class_table(more["per_class"]).split("\n"):
            print(printable(line))


def _answers(options: argparse.Namespace, answers: PerImage) -> dict[str, Any]:
    """What goes into the JSON."""
    names, found = _names(answers), dict[str, Any]()
    if options.per_class:
        found["per_class"] = answer_files.per_class(answers, names)
    if options.confusion:
        counts = answers.confusion(len(names))
        found["confusion"] = {"classes": names, "images": counts.tolist()}
    return found


def _write(options: argparse.Namespace, answers: PerImage) -> None:
    """Writes the files that the options name."""
    names = _names(answers)
    if options.predictions:
        answer_files.write_predictions(options.predictions, answers, names)
    if options.confusion and options.confusion != CONFUSION_IN_JSON:
        answer_files.write_confusion(options.confusion, answers.confusion(len(names)), names)


def _names(answers: PerImage) -> tuple[str, ...]:
    """What to call the classes."""
    own = tuple(answers.source.class_names)
    return imagenet.shown(own, count=len(own))


def _config(options: argparse.Namespace, overrides: Sequence[str]) -> tuple[Config, list[str]]:
    """The config of the run or of the recipe, and notes for the user.

    Raises ValueError if there is none, for an option that would have no effect, or if --corrupt
    would replace one of the evaluators.
    """
    if options.orientation:
        raise ValueError(
            "--orientation is for --images: set --config.data.orientation=True for the data of a"
            " config"
        )
    if exported.is_trained(options.workdir):
        for name in ("config", "classes", "image_size"):
            if getattr(options, name):
                raise ValueError(
                    f"--{name.replace('_', '-')} is for a released file or for --images: a run has"
                    f" its {name.replace('_', ' ')} already"
                )
        config, notes = configs.override(run_config.read_config(options.workdir), overrides)
    elif options.config:
        config, notes = configs.read(
            options.config, [*overrides, f"--config.init_from={options.workdir}"]
        )
    else:
        raise ValueError(
            f"{options.workdir} is not a run: name a recipe with data and evaluators, --config, or"
            " images in folders named by class, --images"
        )
    if options.corrupt and corruption_table.NAME in config.evaluators:
        raise ValueError(
            f"--corrupt adds an evaluator called {corruption_table.NAME!r}, and the config has one"
            f" already: leave --corrupt out (--only {corruption_table.NAME} measures the config's)"
        )
    return config, notes


def _on_images(
    options: argparse.Namespace, recorder: Recorder | None, also: Mapping[str, Evaluator]
) -> tuple[dict[str, Any], dict[str, float]]:
    """Measures on the images of a folder, with the checkpoint's own preprocessing."""
    if not options.images:
        raise ValueError("--labels and --real are for the images of a folder: give --images too")
    if options.labels and options.real:
        raise ValueError("--labels and --real both name the classes of images: give one of them")
    model = load(options.workdir, step=options.step, substitute=True, image_size=options.image_size)
    zoo.check_head(model.options)
    opened = labelled_images.open_images(options, labelled_images.lookup(model, options.classes))
    assert model.preprocessing is not None
    height, width = model.preprocessing.image_size
    shown, count = {"pixels": f"{height}x{width}"}, model.options.num_classes
    if opened.classes < count:
        shown["classes"] = f"{opened.classes} of {count}"
    metrics = evaluation.evaluate_model(
        model,
        opened.source,
        also=also,
        orient=options.orientation,
        recorder=recorder,
    )
    return shown, metrics | ({"unlabelled": opened.unlabelled} if opened.unlabelled else {})
