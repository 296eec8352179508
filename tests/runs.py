"""Tiny runs for tests: a recipe, the command line in processes of its own, and what a run left."""

import json
import os
import pathlib
import subprocess
import sys
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from tests import patience
from tests.patience import limit
from vit_jax.checkpoints import run_folder, store
from vit_jax.config import MeshConfig
from vit_jax.parallel.mesh import make_mesh
from vit_jax.training import optimizer, run_config, schedules, state

ROOT = pathlib.Path(__file__).resolve().parents[1]
# See `compiled.keep_programs` for what is ignored.
NO_WARNING = ("-W", "error", "-W", "ignore:Error reading persistent compilation cache entry")
VIT_JAX = (sys.executable, *NO_WARNING, "-m", "vit_jax")
LIMIT = 180  # seconds that any one process may take on an idle machine: give it to `limit`

RECIPE = """
from vit_jax.config import default_config


def get_config():
    config = default_config()
    config.image_size = (28, 28)
    config.batch_size = 16
    config.total.epochs = 0.0
    config.total.steps = 6
    config.log_every.steps = 1
    config.evaluate_every.percent = 0.0
    config.checkpoint.every.percent = 0.0
    config.eval_batch_size = 512
    config.ema = 0.9
    config.model.name = "Ti/14"
    config.model.width = 16
    config.model.depth = 2
    config.model.mlp_dim = 32
    config.model.num_heads = 2
    config.data.crop = "shift"
    config.data.shift = 2
    config.data.crop_pct = 1.0
    config.data.threads = 2
    config.schedule.warmup.steps = 1
    return config
"""


def write_recipe(folder: pathlib.Path, text: str = RECIPE) -> pathlib.Path:
    path = folder / "recipe.py"
    path.write_text(text)
    return path


class CommandLine:
    """`python -m vit_jax` as a user calls it, and a folder for its runs."""

    def __init__(self, folder: pathlib.Path) -> None:
        self.folder, self.recipe = folder, write_recipe(folder)

    def __call__(
        self, *args: Any, devices: int = 1, program: Sequence[str] = VIT_JAX
    ) -> "subprocess.CompletedProcess[str]":
        """Runs to the end; the result has returncode, stdout and stderr."""
        with self.start(*args, devices=devices, program=program) as child:
            try:
                output, errors = child.communicate(timeout=limit(LIMIT))
            finally:
                child.kill()
        return subprocess.CompletedProcess(child.args, child.returncode, output, errors)

    def start(
        self, *args: Any, devices: int = 1, program: Sequence[str] = VIT_JAX
    ) -> "subprocess.Popen[str]":
        settings = {
            "JAX_PLATFORMS": "cpu",
            "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}",
        }
        if program is not VIT_JAX:
            # Of several processes, some would come without compiling to where they all meet, and
            # the CPU's collectives do not wait long for the others.
            settings["JAX_ENABLE_COMPILATION_CACHE"] = "0"
        return subprocess.Popen(
            [*program, *map(str, args)],
            cwd=ROOT,
            env=os.environ | settings,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def train(self, workdir: pathlib.Path, *overrides: str) -> list[str]:
        """The arguments of `train`, for `__call__`, `start`, or a launcher."""
        return ["train", "--config", str(self.recipe), "--workdir", str(workdir), *overrides]


def wait_until(condition: Callable[[], bool], child: "subprocess.Popen[str]") -> None:
    """Looks all the time, until the condition holds; the process must not end before."""

    def holds() -> bool:
        if condition():
            return True
        assert child.poll() is None, f"ended: {child.communicate()}"
        return False

    patience.wait_until(holds, seconds=LIMIT, pause=0.0005)


def lines(workdir: pathlib.Path) -> list[dict[str, float]]:
    """Of metrics.jsonl, without what depends on the clock; none where it is not there yet."""
    path = workdir / "metrics.jsonl"
    text = path.read_text() if path.exists() else ""
    found = [json.loads(line) for line in text.split("\n")[:-1]]
    return [{k: v for k, v in line.items() if k != "images_per_second"} for line in found]


def arrays(workdir: pathlib.Path, *, step: int | None = None) -> dict[str, np.ndarray]:
    """Every array of a checkpoint (the latest), by path."""
    config, card = run_config.read_config(workdir), run_folder.read_card(workdir)
    schedule = schedules.make_schedule(
        config.schedule, peak=1.0, total_steps=1000, batch_size=1, dataset_size=1
    )
    rule = optimizer.make_optimizer(
        config.optimizer, schedule, state.abstract_params(card.options)[1]
    )
    mesh = make_mesh(MeshConfig())
    abstract = state.abstract_state(card.options, rule, average=config.ema > 0, mesh=mesh)
    with store.Store(workdir, config.checkpoint, read_only=True) as saved:
        found = saved.restore(abstract, step=saved.find("latest" if step is None else step))
    leaves, _ = jax.tree_util.tree_flatten_with_path(found)
    names = [jax.tree_util.keystr(path, simple=True, separator="/") for path, _ in leaves]
    return {name: np.asarray(leaf) for name, (_, leaf) in zip(names, leaves, strict=True)}


def listing(folder: pathlib.Path) -> dict[str, tuple[int, int]]:
    """Size and time of change of every file below a folder; empty where there is none."""
    return {
        str(path.relative_to(folder)): (path.stat().st_size, path.stat().st_mtime_ns)
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
