"""Tiny runs for tests: a recipe, the command line in processes of its own, and what a run left."""

import json
import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from vit_jax.checkpoints import run_folder, store
from vit_jax.config import MeshConfig
from vit_jax.parallel.mesh import make_mesh
from vit_jax.training import run_config, schedules, state, trained

ROOT = pathlib.Path(__file__).resolve().parents[1]

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
    config.report = False
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


def lines(workdir: pathlib.Path) -> list[dict[str, float]]:
    """Of metrics.jsonl, without what depends on the clock; none where it is not there yet."""
    path = workdir / "metrics.jsonl"
    text = path.read_text() if path.exists() else ""
    found = [json.loads(line) for line in text.split("\n")[:-1]]
    return [without_clock(line) for line in found]


def without_clock(line: Mapping[str, Any]) -> dict[str, Any]:
    """A line of metrics without what depends on the clock."""
    return {name: line[name] for name in line if name not in ("images_per_second", "data_wait")}


def arrays(workdir: pathlib.Path, *, step: int | None = None) -> dict[str, np.ndarray]:
    """Every array of a checkpoint (the latest), by path."""
    config, card = run_config.read_config(workdir), run_folder.read_card(workdir)
    schedule = schedules.make_schedule(
        config.schedule, peak=1.0, total_steps=1000, batch_size=1, dataset_size=1
    )
    rule, _ = trained.optimizer_of(
        config.optimizer, config.tune, schedule, options=card.options, total_steps=1000
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
