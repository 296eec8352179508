"""The report of a run, report.html in its folder, and what reports read of a run."""

import datetime
import os
import pathlib
from collections.abc import Sequence

from vit_jax.checkpoints import run_folder
from vit_jax.config import Config
from vit_jax.data import subset
from vit_jax.data.identity import Identity
from vit_jax.page import document
from vit_jax.report.run import Run
from vit_jax.training import datasets, run_config
from vit_jax.workdir import lines, place, sessions

FILE = "report.html"


def at_the_end(workdir: str | os.PathLike[str]) -> str:
    """Writes the report of a run that has ended, without pictures, and says where it is.

    The run has succeeded, whatever happens here: a failure is a message too.
    """
    if not document.is_installed():
        return f"no {FILE}, because Plotly and Jinja2 are missing: {document.INSTALL}"
    from vit_jax.report import page

    path = place.folder(workdir) / FILE
    try:
        document.write(path, page.render(read([os.fspath(workdir)]), pictures={}, date=now()))
    except Exception as error:
        return f"{path} could not be written: {type(error).__name__}: {error}"
    return f"report: {path}"


def read(workdirs: Sequence[str]) -> list[Run]:
    """What reports know of runs. Raises ValueError if one of them is no run or is damaged."""
    return [
        _read(workdir, name=name) for workdir, name in zip(workdirs, _names(workdirs), strict=True)
    ]


def now() -> str:
    """The time in words, for the date of a page."""
    return datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC")


def _read(workdir: str, *, name: str) -> Run:
    config = run_config.read_config(workdir)
    record, metrics = datasets.read(workdir), lines.read(workdir)
    if record is None and not metrics.good:  # its config.json says nothing about training
        raise ValueError(
            f"{workdir} was converted or saved, not trained: `figures --html` draws its pictures"
        )
    train, held_out = (record.splits[s] for s in datasets.SPLITS) if record else (None, None)
    return Run(
        workdir=workdir,
        name=name,
        config=config,
        fields=run_config.flat(config),
        decisive=run_config.decisive(config),
        card=run_folder.read_card(workdir),
        train_size=_train_size(config, train) if train else 0,
        eval_size=held_out.examples if held_out else 0,
        metrics=metrics,
        sessions=sessions.read(workdir),
    )


def _train_size(config: Config, split: Identity) -> int:
    """How many images of the split a run trains on."""
    return subset.number(
        split.examples, classes=len(split.class_names), per_class=config.data.per_class
    )


def _names(workdirs: Sequence[str]) -> list[str]:
    """The last parts of the paths, as many as are needed to tell the runs apart."""
    paths = [pathlib.PurePosixPath(os.fspath(place.folder(workdir))) for workdir in workdirs]
    for count in range(1, max(len(path.parts) for path in paths)):
        names = ["/".join(path.parts[-count:]) for path in paths]
        if len(set(names)) == len(names):
            return names
    return list(workdirs)
