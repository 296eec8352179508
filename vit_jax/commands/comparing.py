"""Several runs in one picture of curves."""

from collections.abc import Sequence

from matplotlib.figure import Figure

from vit_jax.analysis import bands, curves
from vit_jax.training import run_config


def draw(workdirs: Sequence[str]) -> Figure:
    """The curves of runs. Runs whose configs differ only in the seed are one band."""
    lines = {workdir: bands.read(workdir) for workdir in workdirs}
    named = bands.groups({w: run_config.decisive(run_config.read_config(w)) for w in workdirs})
    return curves.curves({label: [lines[w] for w in runs] for label, runs in named.items()})
