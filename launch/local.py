"""Runs one job as several processes on this machine, like a cluster on several hosts.

    python -m launch.local --processes 2 --devices-per-process 4 -- \
        train --config configs/quickstart.py --workdir runs/a

Use it to try a run on several hosts without a cluster. The processes use the CPU unless
JAX_PLATFORMS says otherwise. A machine with several GPUs needs no launcher, because one process
uses all of them.

Process 0 writes directly to the terminal. The lines of the other processes begin with their number.
SIGTERM, SIGINT and SIGHUP are passed on to every process, except those that `nohup` or a shell's
`&` ignores: the processes ignore them too. When a process fails, the others get some time to end,
and are then killed. The exit code is that of the first failure, or 128 + N for a process that
signal N killed.
"""

import argparse
import ctypes
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import IO

from launch import command

PROGRAM = (sys.executable, "-m", "vit_jax")
_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def main(argv: Sequence[str]) -> int:
    parser = command.Parser(prog="python -m launch.local", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--processes", type=command.at_least(1), default=2)
    parser.add_argument(
        "--devices-per-process",
        type=command.at_least(1),
        help="simulated CPU devices of each process (default: as XLA_FLAGS says, else 1)",
    )
    parser.add_argument(
        "--grace",
        type=command.at_least(0),
        default=10,
        help="after a process failed: seconds until the others get SIGTERM, and again until"
        " SIGKILL",
    )
    flags, job = command.parse(parser, argv)
    return run(
        [*PROGRAM, *job],
        processes=flags.processes,
        devices_per_process=flags.devices_per_process,
        grace=flags.grace,
    )


def run(
    argv: Sequence[str],
    *,
    processes: int,
    devices_per_process: int | None = None,
    grace: float = 10.0,
) -> int:
    """Runs `argv` as `processes` processes of one job until all have ended; returns the exit code.

    Call it from the main thread. On Linux, the processes end when this thread dies in any way.
    """
    port = _free_port()
    children: list[subprocess.Popen[str]] = []
    received: list[int] = []
    # A child inherits that a signal is ignored, but not a handler: it would end the child.
    numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
    forwarded = [n for n in numbers if signal.getsignal(n) not in (signal.SIG_IGN, None)]
    before = {n: signal.signal(n, lambda n, _: received.append(n)) for n in forwarded}
    try:
        die_with_parent = _die_with_parent()
        for index in range(processes):
            settings = _environment(os.environ, index, processes, port, devices_per_process)
            output = None if index == 0 else subprocess.PIPE
            children.append(
                subprocess.Popen(
                    argv,
                    env=settings,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=None if output is None else subprocess.STDOUT,
                    text=True,
                    errors="replace",
                    # In a new session, Ctrl-C reaches the process only once, through us.
                    start_new_session=True,
                    preexec_fn=die_with_parent,
                )
            )
        readers = [_relay(child.stdout, f"[{i}] ") for i, child in enumerate(children) if i]
        code = _wait(children, received, grace)
        for reader in readers:
            reader.join(timeout=5)
        return code
    finally:
        for child in children:
            if child.poll() is None:
                child.kill()
                child.wait()
        for number, handler in before.items():
            signal.signal(number, handler)


def _wait(children: Sequence["subprocess.Popen[str]"], received: list[int], grace: float) -> int:
    """Waits for all and passes on signals; returns the exit code of the first failure."""
    code, since, to_send = 0, 0.0, [signal.SIGTERM, signal.SIGKILL]
    while True:
        codes = [child.poll() for child in children]
        failed = [index for index, value in enumerate(codes) if value]
        if failed and not code:
            code, since = codes[failed[0]] or 0, time.monotonic()
            print(f"process {failed[0]} ended: {_describe(code)}", file=sys.stderr, flush=True)
        if None not in codes:
            return 128 - code if code < 0 else code
        while received:
            _send(children, received.pop(0))
        if code and to_send and time.monotonic() - since > grace:
            _send(children, to_send.pop(0))
            since = time.monotonic()
        time.sleep(0.05)


def _send(children: Sequence["subprocess.Popen[str]"], number: int) -> None:
    for child in children:
        child.send_signal(number)  # does nothing if the process has ended


def _describe(code: int) -> str:
    return f"exit code {code}" if code > 0 else f"killed by {signal.Signals(-code).name}"


def _environment(
    base: Mapping[str, str],
    index: int,
    processes: int,
    port: int,
    devices: int | None,
) -> dict[str, str]:
    """The environment of process `index`, which `vit_jax/parallel/multihost.py` reads."""
    settings = dict(base)
    settings.setdefault("JAX_PLATFORMS", "cpu")
    settings["VIT_JAX_COORDINATOR"] = f"127.0.0.1:{port}"
    settings["VIT_JAX_NUM_PROCESSES"] = str(processes)
    settings["VIT_JAX_PROCESS_ID"] = str(index)
    # By default JAX's coordinator would listen on every network interface.
    settings["JAX_COORDINATOR_BIND_ADDRESS"] = f"127.0.0.1:{port}"
    if devices is not None:  # the last of two equal flags is used
        flag = f"--xla_force_host_platform_device_count={devices}"
        settings["XLA_FLAGS"] = f"{base.get('XLA_FLAGS', '')} {flag}".strip()
    return settings


def _free_port() -> int:
    """A port that is free now; the coordinator opens it a moment later."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _relay(source: IO[str] | None, prefix: str) -> threading.Thread:
    """Starts a thread that copies lines to stderr, each after `prefix`, until the source ends."""
    assert source is not None

    def copy() -> None:
        for line in source:
            sys.stderr.write(prefix + line.rstrip("\n") + "\n")
            sys.stderr.flush()

    thread = threading.Thread(target=copy, daemon=True)
    thread.start()
    return thread


def _die_with_parent() -> Callable[[], None] | None:
    """A function that a new child calls, so that the kernel kills it when this process is gone.

    Then even a launcher that is killed by SIGKILL leaves no processes behind. Linux only. The
    library is loaded here, because a child must do as little as possible between fork and exec.
    """
    if sys.platform != "linux":
        return None
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    parent = os.getpid()

    def child() -> None:
        prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
        if os.getppid() != parent:  # it was gone before the call of prctl
            os._exit(1)

    return child


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
