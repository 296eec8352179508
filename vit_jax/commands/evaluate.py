"""`evaluate`: measures a run's checkpoint on its held-out split."""

import argparse
import json
from collections.abc import Sequence

from vit_jax.checkpoints import store
from vit_jax.commands import configs
from vit_jax.parallel import multihost
from vit_jax.training import loop
from vit_jax.training import run as run_lib


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--workdir", required=True, help="folder of the run")
    parser.add_argument(
        "--step", type=checkpoint_step, default="latest", help="latest, best, or a number"
    )
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    parser.set_defaults(config_overrides=True)


def run(options: argparse.Namespace, overrides: Sequence[str]) -> int:
    """Evaluate a checkpoint of a run, exactly, on any number of devices.

    The run's config says on what; --config.data.eval_split=test and the like change it.
    """
    multihost.initialize()
    config = configs.override(store.read_config(options.workdir), overrides)
    step, metrics = run_lib.evaluate(config, options.workdir, which=options.step)
    if multihost.is_primary():
        if options.json:
            print(json.dumps({"step": step, **metrics}))
        else:
            print(f"{options.workdir}, step {step}: {loop.describe(metrics)}")
    return 0


def checkpoint_step(text: str) -> int | str:
    """`latest`, `best`, or a step."""
    if text in ("latest", "best"):
        return text
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r}: give latest, best, or the number of a step")
    return int(text)
