"""The local launcher: one job of several real processes, and how it ends."""

import contextlib
import os
import pathlib
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence

import pytest

from launch import local
from tests.patience import limit, wait_until

ROOT = pathlib.Path(__file__).resolve().parents[2]
LAUNCH = """
import sys
from launch import local
program, flags = [sys.executable, "-c", sys.argv[1]], [*sys.argv[2:], "--", "train"]
local.PROGRAM = tuple(program)
sys.exit(local.main(flags))
"""
INDEX = "import os, signal, sys, time; i = int(os.environ['VIT_JAX_PROCESS_ID'])\n"


@contextlib.contextmanager
def launched(
    program: str, *flags: str, before: Sequence[str] = ()
) -> Iterator["subprocess.Popen[str]"]:
    """Starts the launcher, with `program` instead of vit_jax in each process.

    `before`: the words of a program that runs the launcher, such as nohup.
    """
    child = subprocess.Popen(
        [*before, sys.executable, "-c", LAUNCH, INDEX + program, *flags],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield child
    finally:
        child.kill()
        child.communicate()


def wait_for(paths: list[pathlib.Path]) -> list[int]:
    """The process ids in the files, once all are written."""
    wait_until(
        lambda: all(path.exists() and path.read_text().endswith("\n") for path in paths),
        seconds=20,
    )
    return [int(path.read_text()) for path in paths]


def alive(pid: int) -> bool:
    """Whether the process runs; a zombie does not run."""
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_processes_are_one_jax_job_with_simulated_devices() -> None:
    program = """
from vit_jax.parallel import multihost
multihost.initialize()
import jax
print(sys.argv[1:], jax.process_index(), jax.process_count(), jax.device_count(), flush=True)
multihost.agree(False)
"""
    with launched(program, "--processes", "2", "--devices-per-process", "3") as child:
        output, errors = child.communicate(timeout=limit(60))
    assert child.returncode == 0, errors
    assert "['train'] 0 2 6\n" in output
    assert "[1] ['train'] 1 2 6\n" in errors


def test_a_failure_ends_the_others_and_gives_the_exit_code(tmp_path: pathlib.Path) -> None:
    program = f"""
signal.signal(signal.SIGTERM, signal.SIG_IGN if i == 2 else lambda *_: sys.exit(5))
open(r"{tmp_path}/pid%d" % i, "w").write(str(os.getpid()) + "\\n")
while len(os.listdir(r"{tmp_path}")) < 3: time.sleep(0.02)
if i == 1: sys.exit(3)
time.sleep(3600)
"""
    with launched(program, "--processes", "3", "--grace", "1") as child:
        pids = wait_for([tmp_path / f"pid{i}" for i in range(3)])
        _, errors = child.communicate(timeout=limit(20))
    assert child.returncode == 3
    assert "process 1 ended: exit code 3" in errors
    assert not any(alive(pid) for pid in pids)


def test_the_exit_code_for_a_signal_is_128_plus_its_number() -> None:
    with launched("os.kill(os.getpid(), signal.SIGKILL)", "--processes", "1") as child:
        _, errors = child.communicate(timeout=limit(20))
    assert child.returncode == 128 + signal.SIGKILL
    assert "killed by SIGKILL" in errors


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_reach_every_process(tmp_path: pathlib.Path, number: signal.Signals) -> None:
    program = f"""
def stop(number, frame):
    open(r"{tmp_path}/seen%d" % i, "w").write(str(number) + "\\n")
    sys.exit(0)
signal.signal({int(number)}, stop)
open(r"{tmp_path}/pid%d" % i, "w").write(str(os.getpid()) + "\\n")
time.sleep(3600)
"""
    with launched(program, "--processes", "2") as child:
        wait_for([tmp_path / f"pid{i}" for i in range(2)])
        child.send_signal(number)
        child.communicate(timeout=limit(20))
    assert child.returncode == 0
    assert wait_for([tmp_path / f"seen{i}" for i in range(2)]) == [number, number]


@pytest.mark.parametrize("name", ["SIGHUP", "SIGINT"])
def test_a_signal_that_is_ignored_ends_no_process(tmp_path: pathlib.Path, name: str) -> None:
    """As after `nohup`, when the terminal closes."""
    program = f"""
assert signal.getsignal(signal.{name}) == signal.SIG_IGN
open(r"{tmp_path}/pid%d" % i, "w").write(str(os.getpid()) + "\\n")
while not os.path.exists(r"{tmp_path}/go"): time.sleep(0.02)
"""
    shell = ("sh", "-c", f"trap '' {name[3:]}; exec \"$@\"", "sh")
    with launched(program, "--processes", "2", before=shell) as child:
        pids = wait_for([tmp_path / f"pid{i}" for i in range(2)])
        for pid in (child.pid, *pids):
            os.kill(pid, getattr(signal, name))
        (tmp_path / "go").touch()
        _, errors = child.communicate(timeout=limit(20))
    assert child.returncode == 0, errors


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's help is Linux only")
def test_a_launcher_killed_by_sigkill_leaves_no_process(tmp_path: pathlib.Path) -> None:
    program = f"""
signal.signal(signal.SIGTERM, signal.SIG_IGN)
open(r"{tmp_path}/pid%d" % i, "w").write(str(os.getpid()) + "\\n")
time.sleep(3600)
"""
    with launched(program, "--processes", "2") as child:
        pids = wait_for([tmp_path / f"pid{i}" for i in range(2)])
        child.send_signal(signal.SIGKILL)
        child.wait(timeout=limit(20))
    wait_until(lambda: not any(alive(pid) for pid in pids), seconds=10)


def test_existing_xla_flags_stay() -> None:
    before = {"XLA_FLAGS": "--xla_a=1", "PATH": os.environ["PATH"]}
    settings = local._environment(before, 1, 2, 1234, 4)
    assert settings["XLA_FLAGS"] == "--xla_a=1 --xla_force_host_platform_device_count=4"
    assert settings["PATH"] == before["PATH"]
    assert "XLA_FLAGS" not in local._environment({}, 0, 2, 1234, None)


@pytest.mark.parametrize("flags", [["--processes", "0", "--", "train"], ["--processes", "2"]])
def test_wrong_flags_end_with_code_2(flags: list[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        local.main(flags)
    assert stopped.value.code == 2
