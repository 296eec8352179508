"""The workdir before a run starts: which run it holds, and whether another process uses it."""

import contextlib
import os
import sys

from vit_jax import stopping
from vit_jax.checkpoints import lease as lease_lib
from vit_jax.checkpoints import store as store_lib
from vit_jax.config import Config
from vit_jax.parallel import multihost
from vit_jax.text import printable
from vit_jax.training import run_config


def saved(workdir: str | os.PathLike[str], config: Config) -> tuple[list[int], str]:
    """The saved steps of the run, and a note of what a new run replaces if there are none.

    Raises ValueError if the workdir holds a run with another config.
    """
    if steps := store_lib.saved_steps(workdir):
        run_config.check_same_run(workdir, config)
        return steps, ""
    return [], run_config.replaced_run(workdir, config)


def hold(workdir: str | os.PathLike[str], stack: contextlib.ExitStack) -> lease_lib.Lease | None:
    """The lease of the workdir; only the primary process gets it.

    Raises ValueError on all processes if another process trains there.
    """
    held: list[lease_lib.Lease] = []

    def say(text: str) -> None:
        print(printable(text), file=sys.stderr, flush=True)

    def take() -> None:
        lease = stack.enter_context(lease_lib.hold(workdir, say=say))
        stack.enter_context(stopping.cleanup(lease.release))
        held.append(lease)

    multihost.primary_first("workdir", take)
    return held[0] if held else None
