"""Submits one job to a Slurm cluster: one process per GPU, requeued until it is finished.

    python -m launch.slurm --nodes 4 --gpus-per-node 8 --time 12:00:00 --partition gpu -- \
        train --config configs/vit.py:B/16-i1k --workdir /shared/runs/b16

Run it on a login node, in a clone and a virtual environment that the nodes can read too. Paths of
the job are relative to the clone. The processes find each other automatically
(`vit_jax/parallel/multihost.py`).

Shortly before the time limit, Slurm signals the batch script. The script sends SIGTERM to the run,
waits until it has saved, and puts the job back into the queue; the job then resumes. A job is also
queued again if its node fails or is preempted, but not if the job itself fails or if `scancel`
ends it.
"""

import argparse
import pathlib
import shlex
import sys
from collections.abc import Sequence

from launch import command

ROOT = pathlib.Path(__file__).resolve().parents[1]


def main(argv: Sequence[str]) -> int:
    flags, job = command.parse(_parser(), argv)
    try:
        command.check_job(job, root=ROOT)
        text = script(flags, job)
        if flags.dry_run:
            print(text, end="")
            return 0
        # Slurm creates no folders. Without this one, the job would fail without any message.
        command.make_folder(pathlib.Path(flags.logs))
        return command.execute(["sbatch"], text=text)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2


def script(flags: argparse.Namespace, job: Sequence[str]) -> str:
    """The batch script that runs `python -m vit_jax JOB`."""
    tasks = max(flags.gpus_per_node, 1)
    options = {
        "job-name": flags.name,
        "nodes": flags.nodes,
        "ntasks-per-node": tasks,
        # Not per task: for direct links between GPUs, each process must see all GPUs of its node.
        "gpus-per-node": flags.gpus_per_node or None,
        "cpus-per-task": flags.cpus_per_task,
        "time": flags.time,
        "partition": flags.partition,
        "account": flags.account,
        "output": f"{flags.logs}/%x-%j.log",
        "open-mode": "append",  # a requeued job continues its log
        "requeue": "",
        # USR1 to the script only: `scancel` sends TERM, after which the job must not be requeued.
        "signal": f"B:USR1@{flags.save_seconds}",
    }
    header = [
        f"#SBATCH --{name}" + (f"={shlex.quote(str(value))}" if value != "" else "")
        for name, value in options.items()
        if value is not None
    ]
    return _SCRIPT.format(
        header="\n".join(header),
        root=shlex.quote(str(ROOT)),
        venv=shlex.quote(flags.venv),
        # srun no longer reads this from the header.
        srun=f"srun --kill-on-bad-exit=1 --cpus-per-task={flags.cpus_per_task}",
        job=shlex.join(["python", "-m", "vit_jax", *job]),
    )


_SCRIPT = """\
#!/bin/bash
{header}
set -euo pipefail
cd {root}
source {venv}/bin/activate

stopped=""
trap 'stopped=yes; scancel --signal=TERM "$SLURM_JOB_ID" || true' USR1
{srun} {job} &
step=$!
code=0
wait "$step" || code=$?
if [ -n "$stopped" ]; then
  # The first wait ended with the signal; the run is still saving.
  wait "$step" || true
  exec scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
"""


def _parser() -> argparse.ArgumentParser:
    parser = command.Parser(
        prog="python -m launch.slurm",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add, text = parser.add_argument, command.one_line
    add("--nodes", type=command.at_least(1), default=1)
    add("--gpus-per-node", type=command.at_least(0), default=8, help="0: one CPU process per node")
    add("--cpus-per-task", type=command.at_least(1), default=8, help="cores of each process")
    add(
        "--time",
        type=text,
        default="24:00:00",
        help="time limit, after which the job is requeued and resumes",
    )
    add("--partition", type=text)
    add("--account", type=text)
    add("--name", type=text, default="vit_jax")
    add("--venv", type=text, default=".venv", help="virtual environment, relative to the clone")
    add("--logs", type=text, default=str(ROOT / "runs" / "slurm"), help="folder of the logs")
    add(
        "--save-seconds",
        type=command.at_least(1),
        default=120,
        help="seconds before the limit at which the run saves and stops",
    )
    add("--dry-run", action="store_true", help="print the batch script, but do not submit it")
    return parser


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
