"""`train --dry-run`: what a run would be, without training and without a workdir."""

import argparse
import contextlib
import math
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from vit_jax.analysis import figures
from vit_jax.commands import config as config_command
from vit_jax.commands import configs
from vit_jax.data.batches import Batches
from vit_jax.parallel.mesh import to_global
from vit_jax.text import printable
from vit_jax.training import cached, memory, state, workdirs
from vit_jax.training import run as run_lib
from vit_jax.training.design import Design
from vit_jax.training.run import Parts
from vit_jax.workdir import place

DRAWN = 32  # images in the picture
NAMED = 3  # classes that an image of mixed labels is titled with
LEAST_SHARE = 0.02  # of a class that is named


def run(options: argparse.Namespace, overrides: Sequence[str]) -> int:
    """Prints the config and what the run would say and need, and draws its first batch.

    Raises ValueError if the picture cannot be written.
    """
    config, notes = configs.read(options.config, overrides)
    target = _beside(options.workdir)
    place.check_writable(target)
    with memory.explained(config):
        steps, replaced = workdirs.saved(options.workdir, config)
        resumed = options.workdir if steps else None
        parts = run_lib.opened(config, options.workdir, resumed)
        plan = parts.design
        for path, value in config_command.values(plan.config).items():
            print(printable(f"config.{path} = {value or 'unset'}"))
        begin = (*notes, replaced, "" if steps else plan.start.report)
        for line in run_lib.messages(parts, step=max(steps, default=0), notes=begin):
            for part in line.split("\n"):
                print(printable(part))
        for line in _memory(plan):
            print(line)
        figure = figures.batch(*first_batch(parts))
    with place.named_if_unwritable(target):
        figure.savefig(target, dpi=120)
    print(printable(f"{'first images' if plan.config.tune.caches else 'first batch'}: {target}"))
    return 0


def _memory(plan: Design) -> Iterator[str]:
    """Lines on the memory of a device. The step is compiled for the devices of this machine."""
    parts = {"parameters": "params", "optimizer": "opt_state", "average": "ema"}
    held = [
        f"{what} {_size(_on_a_device(plan.abstract[key]))}"
        for what, key in parts.items()
        if key in plan.abstract
    ]
    yield f"memory of each device: {', '.join(held)}"
    with jax.set_mesh(plan.mesh):
        lowered = plan.step.lower(plan.abstract, dict(plan.batch), plan.abstract_frozen)
        found = lowered.compile().memory_analysis()
    if found is None:  # the compiler does not say
        return
    state_and_batch, step = found.argument_size_in_bytes, found.temp_size_in_bytes
    yield (
        f"a step needs {_size(state_and_batch + step)}: state and batch {_size(state_and_batch)},"
        f" activations and gradients {_size(step)} (as compiled)"
    )


def _on_a_device(tree: Any) -> int:
    """Bytes of a tree of shapes with shardings on the device that holds most."""
    return sum(
        math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize
        for leaf in jax.tree.leaves(tree)
    )


def _size(number: int) -> str:
    return f"{number / 2**30:.2f} GiB" if number >= 2**30 else f"{number / 2**20:.1f} MiB"


def first_batch(parts: Parts) -> tuple[np.ndarray, list[list[str]]]:
    """The first images of the run, uint8 (N, H, W, C), and the lines of their labels.

    If features are computed once, they are the first images of its data.
    """
    plan = parts.design
    with contextlib.ExitStack() as stack:
        stack.enter_context(jax.set_mesh(plan.mesh))
        batch = next(stack.enter_context(_images(parts)))
        names = {*plan.batch, "image", "sample_index"} & batch.keys()
        inputs = {name: batch[name] for name in names}
        placed = to_global(inputs, plan.mesh, batch_size=plan.config.batch_size)
        key, _ = state.keys(plan.config.seed)
        ready = jax.device_get(jax.jit(plan.prepare)(placed, key=key))
    number = min(DRAWN, len(ready["image"]))
    labels = [_label(ready, row, parts.data.class_names) for row in range(number)]
    return _pixels(ready["image"][:number], plan), labels


def _images(parts: Parts) -> Batches:
    """The batches of the run, or those that it computes its features from."""
    if parts.design.config.tune.caches:
        return cached.images(parts.design, parts.data.train)
    return run_lib.batches_of(parts, start=0, params=None)


def _pixels(images: np.ndarray, plan: Design) -> np.ndarray:
    """Images as the model gets them, in uint8 again."""
    if images.dtype == np.uint8:
        return images
    data = plan.config.data
    values = images.astype(np.float64) * data.std + np.asarray(data.mean)
    return np.rint(values * 255).clip(0, 255).astype(np.uint8)


def _label(batch: Mapping[str, np.ndarray], row: int, names: Sequence[str]) -> list[str]:
    """The classes of an image, with their shares if they are mixed."""
    if "targets" in batch:
        shares = batch["targets"][row].astype(np.float64)
        best = np.argsort(-shares, kind="stable")[:NAMED]
        named = [i for i in best if shares[i] >= LEAST_SHARE]
        whole = len(named) == 1 and shares[named[0]] > 0.5
        return [names[i] if whole else f"{names[i]} {100 * shares[i]:.0f}%" for i in named]
    label = batch.get("label")
    return [names[int(label[row])]] if label is not None and label.ndim == 1 else []


def _beside(workdir: str) -> pathlib.Path:
    """The file of the picture: beside the workdir, or in this folder if there is no place."""
    path = pathlib.Path(workdir)
    folder = path.parent if path.parent.is_dir() else pathlib.Path()
    return folder / f"{path.name}.first_batch.png"
