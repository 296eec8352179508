"""Training and evaluation from a Python program."""

import contextlib
import dataclasses
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import ml_collections

from vit_jax.checkpoints import store
from vit_jax.config import Config, resolve
from vit_jax.data import given
from vit_jax.parallel import multihost
from vit_jax.training import evaluation, loop, run_config

Callback = Callable[[int, Mapping[str, float]], object]


def train(
    config: Config | ml_collections.ConfigDict | Mapping[str, Any],
    workdir: str | os.PathLike[str],
    *,
    source: given.Given | None = None,
    held_out: given.Given | None = None,
    class_names: Sequence[str] | None = None,
    callbacks: Sequence[Callback] = (),
) -> dict[str, float]:
    """Trains the run in the folder `workdir`, new or resumed, as the command `train` does.

    `config` is what `get_config` of a recipe returns: `vit_jax.config.default_config()` with some
    fields set. Returns the metrics of the last evaluation, such as `top1` and `loss`.

    `source` and `held_out` are datasets to train and to evaluate on, instead of those of the
    config: a pair of arrays, images uint8 (N, H, W) or (N, H, W, C) and labels (N,); or any object
    with `__len__` and `read(index)` (or `[index]`) that returns an image (a path, the bytes of a
    file, or uint8 (H, W) or (H, W, C)) and the number of its class. Several threads call `read`.
    Without `held_out`, the evaluations are on `source`. `class_names` are the names of the classes;
    unset, those of the attribute `class_names` of `source`, or the numbers in arrays of labels. A
    `held_out` with an attribute `class_names` is matched with them by name.

    Each of `callbacks` is called with a step and the values of every line of metrics.jsonl:
    `loss`, `learning_rate`, ..., and `eval_top1`, ... of an evaluation. An error in a callback ends
    the run. The same call continues a run that ended, from its last checkpoint.

    Raises ValueError, before anything is written, if the config cannot be run or a dataset is
    wrong, and `vit_jax.errors.RunFailed` if the run fails, for example because it diverges.
    """
    multihost.initialize()
    if not isinstance(config, Config):
        config = resolve(config)
    with contextlib.ExitStack() as stack:
        if source is not None:
            config = _on_given(config)
            stack.enter_context(given.using(source, held_out, class_names=class_names))
        elif held_out is not None or class_names is not None:
            raise ValueError("held_out and class_names are of a dataset: give source too")
        return loop.train(config, workdir=workdir, notes=[], callbacks=callbacks)


def evaluate(
    workdir: str | os.PathLike[str],
    held_out: given.Given | None = None,
    *,
    source: given.Given | None = None,
    class_names: Sequence[str] | None = None,
    step: store.Which = "latest",
) -> dict[str, float]:
    """The metrics of a run's evaluators, as the command `evaluate` measures them.

    `workdir` is the folder of the run, and `step` the checkpoint: its number, "latest" or "best".
    `held_out` is a dataset to evaluate on instead of that of the run's config, in one of the forms
    that `train` takes; a run that was trained on a `source` of a program needs it. `source` are the
    training images, for evaluators that need them, such as knn. `class_names` are the names of the
    classes, which are matched with those of the run; unset, as in `train`.

    Raises ValueError if there is no such run or checkpoint, a dataset does not fit it, or an
    evaluator needs training images and there are none.
    """
    multihost.initialize()
    config = run_config.read_config(workdir)
    with contextlib.ExitStack() as stack:
        if held_out is not None:
            config = _on_given(config)
            stack.enter_context(given.using(source, held_out, class_names=class_names))
        elif source is not None or class_names is not None:
            raise ValueError("source and class_names are of a dataset: give held_out too")
        return evaluation.evaluate(config, workdir, which=step)[1]


def _on_given(config: Config) -> Config:
    """The config of a run on the datasets that a program gives."""
    data = dataclasses.replace(
        config.data, source=given.GivenData(), train_split=given.TRAIN, eval_split=""
    )
    return dataclasses.replace(config, data=data)
