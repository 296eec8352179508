"""`train`: starts or resumes a run."""

import argparse
import shlex
from collections.abc import Sequence

from vit_jax.commands import arguments
from vit_jax.text import printable


def add_arguments(parser: argparse.ArgumentParser) -> None:
    arguments.add_recipe(parser)
    parser.add_argument("--workdir", required=True, help="folder of the run; created if missing")
    parser.add_argument("--profile", action="store_true", help="record steps 10 to 15 in profile/")
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="only show the config, the model, the memory and the first batch",
    )
    parser.set_defaults(config_overrides=True)
    parser.epilog = arguments.HINT


def run(options: argparse.Namespace, overrides: Sequence[str]) -> int:
    """Train a model: start a run, or resume it.

    Any field of the config can be set, as in --config.optimizer.learning_rate=1e-3. The same
    command resumes an interrupted run from its last checkpoint. With --dry-run nothing is trained
    and no workdir is written: the run is checked, its step is compiled, and its first batch is
    drawn beside the workdir, after augmentation and with labels.
    """
    from vit_jax.commands import configs

    if options.dry_run:
        from vit_jax.commands import dry_run

        return dry_run.run(options, overrides)
    from vit_jax.parallel import agreement, multihost

    multihost.initialize()
    with agreement.Meeting():
        config, notes = configs.read(options.config, overrides)
    from vit_jax.training import loop, reporting  # a wrong recipe need not wait for these

    given = ("--config", options.config, "--workdir", options.workdir, *overrides)
    metrics = loop.train(
        config,
        workdir=options.workdir,
        profile=options.profile,
        notes=notes,
        command=shlex.join(["python", "-m", "vit_jax", "train", *given]),
    )
    if multihost.is_primary():
        print(printable(f"{options.workdir}: {reporting.describe(metrics)}"))
    return 0
