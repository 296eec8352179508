"""What `report` does, once its arguments are read."""

import argparse
import os
import sys
from collections.abc import Sequence

from vit_jax.checkpoints import run_folder
from vit_jax.commands import picture_files, pictures
from vit_jax.commands.subject import Subject
from vit_jax.page import document
from vit_jax.report import page
from vit_jax.report.run import Run
from vit_jax.text import printable
from vit_jax.training import reports
from vit_jax.workdir import place

PICTURE_BYTES = 2 * 2**20  # of all pictures of a page


def run(options: argparse.Namespace) -> int:
    """Draws the page, writes it and prints its path. Returns the exit code."""
    if options.no_pictures and options.measured:
        raise ValueError("--measured is for the pictures, which --no-pictures leaves out")
    document.check_installed("report")
    for workdir in options.runs:
        if not run_folder.is_run(workdir):
            raise ValueError(
                f"{workdir} is not a run: `figures --html` draws the pictures of a released file"
                if os.path.isfile(workdir)
                else f"{workdir} is not a run: it has no model.json"
            )
    if len({os.fspath(place.folder(workdir)) for workdir in options.runs}) < len(options.runs):
        raise ValueError("a run is named twice: name each run once")
    if len(options.runs) > 1 and not options.output:
        raise ValueError("a page about several runs belongs to none of them: give a file, -o")
    path = options.output or place.folder(options.runs[0]) / reports.FILE
    runs = reports.read(options.runs)
    drawn = {} if options.no_pictures else _pictures(runs, measured=options.measured or 0)
    document.write(path, page.render(runs, pictures=drawn, date=reports.now()))
    print(printable(path))
    return 0


def _pictures(runs: Sequence[Run], *, measured: int) -> dict[str, page.Pictures]:
    """The pictures of each run that `figures` draws, by workdir. A failure is a note on stderr."""
    drawn: dict[str, page.Pictures] = {}
    for one in runs:
        subject = Subject(workdir=one.workdir, measured=measured)
        try:
            figures = pictures.drawn(subject, but=("curves",), quiet=True)
            drawn[one.workdir] = picture_files.embedded(figures, most=PICTURE_BYTES // len(runs))
        except ValueError as error:  # no checkpoint, or the images are not there
            note = f"vit_jax: {one.workdir} has no pictures: {error}"
            print(printable(note), file=sys.stderr)
    return drawn
