"""Runs one job on all hosts of a Cloud TPU VM slice; it continues when ssh disconnects.

    python -m launch.tpu_vm --name vit --zone us-central2-b --create --accelerator-type v4-32 \
        --spot --workdir gs://bucket/b16 -- train --config configs/vit.py:B/16-i1k

The committed source (HEAD) is copied to every host and installed there. The processes find each
other automatically (`vit_jax/parallel/multihost.py`). To resume the job or to start another one,
use the same command without --create. The launcher prints the commands that follow the log, stop
the job after it has saved, and delete the slice. A slice costs money until it is deleted.
"""

import argparse
import pathlib
import re
import shlex
import subprocess
import sys
from collections.abc import Sequence

from launch import command

ROOT = pathlib.Path(__file__).resolve().parents[1]


def main(argv: Sequence[str]) -> int:
    parser = _parser()
    flags, job = command.parse(parser, argv)
    if flags.create and not flags.accelerator_type:
        parser.error("--create needs --accelerator-type, such as v4-32")
    try:
        job = with_workdir(job, flags.workdir)
        recipe = command.check_job(job, root=ROOT)
        steps = commands(flags, job)
        if not flags.dry_run:
            _check_committed(recipe)
            command.make_folder(ROOT / "build")
        for step in steps:
            print(shlex.join(step), flush=True)
            if not flags.dry_run and (code := command.execute(step)):
                return code
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    for purpose, step in follow_up(flags).items():
        print(f"# {purpose}:\n# {shlex.join(step)}")
    return 0


def with_workdir(job: Sequence[str], workdir: str | None) -> list[str]:
    """Adds `--workdir` to the job. Raises ValueError if the hosts would not share the folder."""
    given = [word.partition("=")[2] for word in job if word.startswith("--workdir=")]
    given += [job[i + 1] for i, word in enumerate(job[:-1]) if word == "--workdir"]
    if workdir and given:
        raise ValueError(f"--workdir is given twice, {workdir!r} and {given[0]!r}: keep one")
    for path in [workdir] if workdir else given:
        if "://" not in path and not path.startswith("/"):
            raise ValueError(
                f"workdir {path!r} would be a different folder on every host: give one that all"
                " hosts share, such as gs://BUCKET/RUN"
            )
    return [*job, f"--workdir={workdir}"] if workdir else list(job)


def commands(flags: argparse.Namespace, job: Sequence[str]) -> list[list[str]]:
    """The command lines that start the job, in order. They run in the clone."""
    archive = str(ROOT / "build" / f"{flags.name}.tar.gz")
    steps = [["git", "-C", str(ROOT), "archive", "--format=tar.gz", f"--output={archive}", "HEAD"]]
    if flags.create:
        create = ["create", flags.name, f"--accelerator-type={flags.accelerator_type}"]
        create += [f"--version={flags.version}"] + ["--spot"] * flags.spot
        steps.append(_gcloud(flags, *create))
    return [
        *steps,
        _ssh(flags, _REFUSE_IF_RUNNING),
        _gcloud(flags, "scp", archive, f"{flags.name}:vit_jax.tar.gz", "--worker=all"),
        _ssh(flags, _INSTALL.format(python=shlex.quote(flags.python))),
        _ssh(flags, _START.format(job=shlex.join([".venv/bin/python", "-m", "vit_jax", *job]))),
    ]


def follow_up(flags: argparse.Namespace) -> dict[str, list[str]]:
    """The next things that a user may want to do, each with its command line."""
    return {
        "follow the log": _ssh(flags, "tail -n 50 -F ~/vit_jax.log", worker="0"),
        "stop the job, which saves first": _ssh(flags, 'kill -TERM "$(cat ~/vit_jax.pid)"'),
        "delete the slice": _gcloud(flags, "delete", flags.name),
    }


# Each of these is one line of shell for every host. The folder of the source is deleted first, so
# that no file of an older commit remains.
_REFUSE_IF_RUNNING = (
    'if [ -f ~/vit_jax.pid ] && kill -0 "$(cat ~/vit_jax.pid)" 2>/dev/null; then'
    ' echo "a job is still running on $(hostname): stop it first" >&2; exit 1; fi'
)
# The system's Python is too old; uv installs another one.
_INSTALL = (
    "set -e; rm -rf ~/vit_jax; mkdir ~/vit_jax; cd ~/vit_jax; tar -xzf ~/vit_jax.tar.gz;"
    " python3 -m pip install --quiet --user uv;"
    " python3 -m uv venv --quiet --python {python} .venv;"
    " python3 -m uv pip install --quiet --python .venv/bin/python --editable '.[tpu]'"
)
# A new session outlives the ssh connection; the pid is that of the job itself.
_START = (
    "cd ~/vit_jax && {{ setsid nohup {job} >> ~/vit_jax.log 2>&1 < /dev/null &"
    " echo $! > ~/vit_jax.pid; }}"
)


def _gcloud(flags: argparse.Namespace, *words: str) -> list[str]:
    where = [f"--zone={flags.zone}"] + ([f"--project={flags.project}"] if flags.project else [])
    return ["gcloud", "compute", "tpus", "tpu-vm", *words, *where]


def _ssh(flags: argparse.Namespace, line: str, *, worker: str = "all") -> list[str]:
    return _gcloud(flags, "ssh", flags.name, f"--worker={worker}", f"--command={line}")


def _check_committed(recipe: str) -> None:
    """Raises ValueError if tracked files differ from HEAD, or if it lacks the recipe of the job.

    HEAD is what would run. `recipe` is the path of the recipe in the clone, or "".
    """
    command.check_installed("git")
    status = ["git", "-C", str(ROOT), "status", "--porcelain", "--untracked-files=no"]
    changed = subprocess.run(status, capture_output=True, text=True, check=False)
    if changed.returncode:
        # It may be no clone, or one of another user, which git does not read: git says what to do.
        why = " ".join(changed.stderr.split()) or f"exit code {changed.returncode}"
        raise ValueError(
            f"{ROOT} is not a git clone that can be read: launch from one, because its HEAD is what"
            f" runs (git: {why})"
        )
    if changed.stdout.strip():
        files = ", ".join(line[3:] for line in changed.stdout.splitlines()[:3])
        raise ValueError(f"uncommitted changes ({files}): commit them, because HEAD is what runs")
    found = ["git", "-C", str(ROOT), "cat-file", "-e", f"HEAD:./{recipe}"]
    if recipe and subprocess.run(found, capture_output=True, check=False).returncode:
        raise ValueError(
            f"{recipe} is not in HEAD: commit it, and name it relative to the clone, because HEAD"
            " is what runs"
        )


def _parser() -> argparse.ArgumentParser:
    parser = command.Parser(
        prog="python -m launch.tpu_vm",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add, text = parser.add_argument, command.one_line
    add("--name", type=_name, required=True, help="name of the TPU VM")
    add("--zone", type=_name, required=True)
    add("--project", type=_name, help="default: the project of the gcloud configuration")
    add(
        "--workdir",
        type=text,
        help="added to the job; a folder that all hosts share: gs://BUCKET/RUN",
    )
    add("--create", action="store_true", help="create the TPU VM first")
    add("--accelerator-type", type=text, help="with --create: v4-32, v5litepod-16, v6e-8, ...")
    add(
        "--version",
        type=text,
        default="tpu-ubuntu2204-base",
        help="with --create: version of the software",
    )
    add("--spot", action="store_true", help="with --create: cheaper, but may be preempted")
    add("--python", type=text, default="3.12", help="version of Python to install on the hosts")
    add("--dry-run", action="store_true", help="print the commands, but do not run them")
    return parser


def _name(text: str) -> str:
    """An argparse type: a name that Google Cloud allows, which is also safe in a path."""
    if not re.fullmatch(r"[a-z][a-z0-9:.-]*", text):
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a valid name for Google Cloud: give one such as vit-1"
        )
    return text


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
