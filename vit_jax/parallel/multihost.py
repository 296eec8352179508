"""Several processes as one job: joining it, and decisions that the processes make together.

Every process runs the same program. Before JAX is used, `initialize` finds the other processes
from the first of these sources:

1. the arguments, or VIT_JAX_COORDINATOR, VIT_JAX_NUM_PROCESSES and VIT_JAX_PROCESS_ID
   (`launch/local.py` sets them);
2. a Slurm step of several tasks;
3. a Cloud TPU slice;
4. otherwise this process is alone, and the network is not used.
"""

import contextlib
import itertools
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from vit_jax import stopping

AGREE_EVERY = 10  # steps after which processes ask each other whether one was told to stop
READ_LIMIT = 30.0  # seconds that one of several processes waits for a batch after a stop signal
LEAVE_LIMIT = 8.0  # seconds that a primary process that failed waits for the others to say why
JOIN_LIMIT = 290.0  # seconds that a process waits for the others; the limit of JAX is 300
_NUMBERS = itertools.count()  # of calls of `primary_first`


def initialize(
    *,
    coordinator: str | None = None,
    num_processes: int | None = None,
    process_id: int | None = None,
) -> None:
    """Joins the job this process belongs to; calling it again does nothing.

    `coordinator` is `HOST:PORT` of process 0. An argument that is None is read from its
    environment variable. Raises ValueError if only some of the three are given, or if they
    contradict each other.
    """
    if jax.distributed.is_initialized():
        return
    # The preemption service of JAX would handle SIGTERM instead of the training loop, which saves
    # after that signal, together with the other processes (`agree`).
    jax.config.update("jax_enable_preemption_service", False)
    explicit = _explicit(coordinator, num_processes, process_id)
    if explicit is not None:
        address, count, index = explicit
        if count > 1:
            with _limited(f" of {count} to {address}"):
                # Without "deactivate" JAX would use only the device of a surrounding Slurm task.
                jax.distributed.initialize(
                    address, count, index, cluster_detection_method="deactivate"
                )
    elif _in_slurm_step():
        with _limited(""):
            jax.distributed.initialize(
                local_device_ids=_slurm_devices(), cluster_detection_method="slurm"
            )
    elif _in_tpu_slice():
        with _limited(""):
            jax.distributed.initialize()


@contextlib.contextmanager
def _limited(where: str) -> Iterator[None]:
    """Ends the process with one line if joining a job takes too long.

    A little later JAX would abort the process with a C++ stack trace.
    """

    def end() -> None:
        print(
            f"vit_jax: the other processes{where} did not all join within {JOIN_LIMIT:.0f} s: look"
            " for one that failed, was not started, or cannot reach the coordinator",
            file=sys.stderr,
            flush=True,
        )
        os._exit(1)

    timer = threading.Timer(JOIN_LIMIT, end)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def is_primary() -> bool:
    """Whether this process prints, and writes the files that are written once."""
    return jax.process_index() == 0


def agree(flag: bool) -> bool:
    """Whether `flag` is True on any process. All processes must call it.

    It waits for the work queued on the devices, so do not call it at every step.
    """
    if jax.process_count() == 1:
        return flag
    return bool(np.any(multihost_utils.process_allgather(np.asarray(flag))))


def told_to_stop(count: int) -> bool:
    """Whether to stop after `count` steps or batches: the answer is the same on all processes.

    Several processes ask each other only after every `AGREE_EVERY` steps.
    """
    if jax.process_count() == 1:
        return stopping.requested()
    return count % AGREE_EVERY == 0 and agree(stopping.requested())


def give_up_reading(waited: float) -> bool:
    """Whether to stop waiting for images after `waited` seconds, because of a signal to stop.

    One of several processes first waits for `READ_LIMIT`, from the signal on and for one batch: it
    shall reach the step after which all of them stop, however slowly it reads. It decides alone.
    """
    limit = READ_LIMIT if jax.process_count() > 1 else 0.0
    return waited >= limit and stopping.requested(for_seconds=limit)


def primary_first(name: str, act: Callable[[], None]) -> None:
    """Calls `act` on the primary process; the other processes wait until it ends.

    A ValueError of `act` is raised on every process. All processes call it in the same order.
    """
    if jax.process_count() == 1:
        act()
        return
    # Numbered, because a program may train several times in one job.
    messages, key = client(), f"vit_jax/first/{next(_NUMBERS)}/{name}"
    if not is_primary():
        # Not through the devices: their collectives do not wait for minutes.
        if error := messages.blocking_key_value_get(key, 3600 * 1000):
            raise ValueError(error)
        return
    error = "another process failed"
    try:
        act()
        error = ""
    except ValueError as failed:
        error = str(failed)
        raise
    finally:
        messages.key_value_set(key, error)


def client() -> Any:
    """The client of the coordinator, whose table of keys and values all processes see."""
    import orbax.checkpoint as ocp  # slow to import, and needed by several processes only

    return ocp.multihost.get_jax_distributed_client()


def leave(code: int) -> None:
    """Ends this process at once if there are other processes; does nothing if it is alone.

    Used after a failure: at an ordinary exit JAX waits minutes for the other processes to exit,
    while they wait for this process in the next step. The primary process is the coordinator, and
    JAX aborts the others when it is gone. So it first waits until they have said why they failed.
    """
    if not jax.distributed.is_initialized():
        return
    sys.stdout.flush()
    sys.stderr.flush()
    # In a thread, because a call that reaches no coordinator may take minutes.
    parting = threading.Thread(target=_part, daemon=True)
    parting.start()
    parting.join(timeout=LEAVE_LIMIT)
    os._exit(code)


def _part() -> None:
    """Tells the primary process that this one has printed its error; there, waits for all."""
    with contextlib.suppress(jax.errors.JaxRuntimeError):
        messages = client()
        messages.key_value_set(f"vit_jax/leaving/{jax.process_index()}", "printed")
        if is_primary():
            for index in range(1, jax.process_count()):
                messages.blocking_key_value_get(f"vit_jax/leaving/{index}", int(1000 * LEAVE_LIMIT))
            time.sleep(1)  # until they have ended


def _explicit(
    coordinator: str | None, num_processes: int | None, process_id: int | None
) -> tuple[str, int, int] | None:
    """(address, number of processes, index), or None if none of them is given."""
    coordinator = coordinator or os.environ.get("VIT_JAX_COORDINATOR") or None
    if num_processes is None:
        num_processes = _integer("VIT_JAX_NUM_PROCESSES")
    if process_id is None:
        process_id = _integer("VIT_JAX_PROCESS_ID")
    given = {
        "coordinator (VIT_JAX_COORDINATOR)": coordinator,
        "number of processes (VIT_JAX_NUM_PROCESSES)": num_processes,
        "process index (VIT_JAX_PROCESS_ID)": process_id,
    }
    missing = [name for name, value in given.items() if value is None]
    if len(missing) == len(given):
        return None
    if coordinator is None or num_processes is None or process_id is None:
        raise ValueError(f"several processes: missing {' and '.join(missing)}: set all, or none")
    if num_processes < 1:
        raise ValueError(f"the number of processes is {num_processes}: it must be at least 1")
    if not 0 <= process_id < num_processes:
        raise ValueError(
            f"the process index is {process_id}: with {num_processes} processes it must be"
            f" from 0 to {num_processes - 1}"
        )
    host, _, port = coordinator.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise ValueError(
            f"the coordinator is {coordinator!r}: give HOST:PORT, such as 10.0.0.1:8476"
        )
    return coordinator, num_processes, process_id


def _integer(variable: str) -> int | None:
    text = os.environ.get(variable)
    if not text:
        return None
    try:
        return int(text)
    except ValueError:
        raise ValueError(f"{variable} is {text!r}: it must be a whole number") from None


def _in_slurm_step() -> bool:
    """Whether `srun` started this process with others; a batch script alone is not a step."""
    step = ("SLURM_JOB_ID", "SLURM_STEP_NODELIST", "SLURM_PROCID", "SLURM_LOCALID")
    return all(name in os.environ for name in step) and (_integer("SLURM_NTASKS") or 1) > 1


def _slurm_devices() -> list[int] | None:
    """This task's GPUs, as indices of the visible ones; None: JAX selects one for each task.

    JAX gives task i of a node its i-th GPU. That is wrong if Slurm has bound one GPU to each task,
    and leaves GPUs idle if one task uses the whole node.
    """
    visible = [gpu for gpu in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if gpu]
    one_task_per_node = _integer("SLURM_NTASKS") == _integer("SLURM_STEP_NUM_NODES")
    if visible and (len(visible) == 1 or one_task_per_node):
        return list(range(len(visible)))
    return None


def _in_tpu_slice() -> bool:
    """Whether this is a TPU host that may have neighbours.

    On import JAX puts "tpu" first among its platforms only if it finds a TPU or a setting says so,
    and sets TPU_SKIP_MDS_QUERY if there is no TPU. So no other machine contacts a TPU service.
    """
    platforms = jax.config.jax_platforms or ""  # type: ignore[attr-defined]
    if "tpu" not in platforms.split(","):
        return False
    hosts = os.environ.get("TPU_PROCESS_ADDRESSES") or os.environ.get("TPU_WORKER_HOSTNAMES")
    if hosts:  # Kubernetes, or a notebook host that has one TPU to itself
        return "," in hosts or (_integer("MEGASCALE_NUM_SLICES") or 1) > 1
    if os.environ.get("TPU_PROCESS_ADDRESSES_PATH"):
        return True
    return "TPU_SKIP_MDS_QUERY" not in os.environ
