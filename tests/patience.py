"""How long a test waits for other processes: longer where the machine is busy."""

import os
import time
from collections.abc import Callable

from vit_jax.parallel import machine

FLOOR = 120  # seconds


def limit(seconds: float) -> float:
    """For what takes part of `seconds` on an idle machine: more of them by its load now.

    A limit is there to end a test that hangs, not to measure: it is never a tight one. The load of
    the last minute may miss that the machine is busy, or has fewer cores for us than it shows.
    """
    waiting = os.getloadavg()[0] / machine.host_cores()  # processes for each core
    return max(seconds, FLOOR) * max(1.0, min(2 * waiting, 30.0))


def wait_until(condition: Callable[[], bool], *, seconds: float, pause: float = 0.02) -> None:
    """Looks again and again until the condition holds. Fails after `limit(seconds)`."""
    began = time.monotonic()
    while not condition():  # the load is asked again: it may have grown since
        assert time.monotonic() - began < limit(seconds), "nothing happened"
        time.sleep(pause)
