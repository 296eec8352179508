"""Trains twins: the same run here and in the original code, in lockstep, and compares every step.

    python -m benchmarks.twins timm_adamw --peer-python PYTHON --peers FOLDER --out FOLDER
    python -m benchmarks.twins --page docs/twins.md --out FOLDER

PYTHON is that of an environment with PyTorch, timm and transformers. The folder --peers has the
checkouts of repositories; a message says which one is missing. Every twin writes its figures to
--out/NAME.json; --page writes those of all twins as a table and a chart. --record writes the short
trajectories of the peers that the tests repeat. --ends SEEDS trains whole runs instead, once with
each seed, and writes their held-out metrics to --out/ends/NAME.json. --round-as-pytorch shows
whether a twin parts because of the rounding of the update; its figures are a row of their own, from
--out/NAME_rounded.json.
"""

import argparse
import contextlib
import itertools
import pathlib
import sys
import tempfile
from typing import Any

from benchmarks.twins import ends, lockstep, recorded, report
from benchmarks.twins.catalogue import TWINS
from benchmarks.twins.contract import Twin
from benchmarks.twins.ours import Run, open_run
from benchmarks.twins.peer import Peers
from benchmarks.twins.rounding import as_pytorch

_TABLE = "<!-- table -->", "<!-- end of table -->"
_ENDS = "<!-- ends -->", "<!-- end of ends -->"
_ROUNDED = "_rounded"  # ends the name of a twin trained with --round-as-pytorch


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("names", nargs="*", help=f"of {', '.join(TWINS)}")
    parser.add_argument("--peers", default="peers", help="folder with checkouts of repositories")
    parser.add_argument("--peer-python", default=sys.executable)
    parser.add_argument("--data", default="", help="image folders; unset: Fashion-MNIST")
    parser.add_argument("--steps", type=int, default=1000, help="length of the run")
    parser.add_argument("--stop", type=int, help="end before the run does")
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("twins"))
    parser.add_argument(
        "--round-as-pytorch", action="store_true", help="round the updates of our AdamW as PyTorch"
    )
    parser.add_argument("--page", type=pathlib.Path, help="page to write the table to")
    parser.add_argument("--record", action="store_true", help="write the figures for the tests")
    parser.add_argument("--ends", type=int, metavar="SEEDS", help="compare the ends of whole runs")
    flags = parser.parse_args()
    for name in flags.names:
        if name not in TWINS:
            parser.error(f"no twin {name!r}: choose from {', '.join(TWINS)}")
        _train(name, flags)
    if flags.page:
        _write_page(flags.page, flags.out)


def _train(name: str, flags: argparse.Namespace) -> None:
    twin = TWINS[name]
    steps, data = (recorded.STEPS, "") if flags.record else (flags.steps, flags.data)
    with tempfile.TemporaryDirectory() as folder:
        run = open_run(twin, steps=steps, data=data, folder=folder)
        peers = Peers(python=flags.peer_python, folder=flags.peers)
        if flags.record:
            recorded.record(name, twin, run, peers)
            return
        if flags.ends:
            reached = ends.find(twin, run, peers, seeds=flags.ends)
            ends.write(flags.out / "ends" / f"{name}.json", reached, _facts(twin, run, steps))
            print("\n".join(ends.rows(name, reached)))
            return
        rounding = as_pytorch() if flags.round_as_pytorch else contextlib.nullcontext()
        with rounding, lockstep.Lockstep(twin, run, peers) as both:
            found = lockstep.train(both, stop=flags.stop or steps)
    facts = _facts(twin, run, steps) | {"versions": both.versions}
    if flags.round_as_pytorch:
        name += _ROUNDED
        facts["about"] = f"{twin.about}; here our update is rounded as in PyTorch"
    report.write(flags.out / f"{name}.json", found, facts)
    print(report.row(name, found, facts))


def _facts(twin: Twin, run: Run, steps: int) -> dict[str, Any]:
    return {"about": twin.about, "data": run.source.name, "steps": steps}


def _write_page(page: pathlib.Path, folder: pathlib.Path) -> None:
    """Writes the tables and the chart of the twins that have a file in `folder`."""
    names = [name + ending for name in TWINS for ending in ("", _ROUNDED)]
    paths = {name: folder / f"{name}.json" for name in names}
    twins = {name: report.read(path) for name, path in paths.items() if path.exists()}
    rows = [report.row(name, found, facts) for name, (found, facts) in twins.items()]
    paths = {name: folder / "ends" / f"{name}.json" for name in TWINS}
    of_ends = [ends.rows(name, ends.read(path)) for name, path in paths.items() if path.exists()]
    text = page.read_text()
    text = _between(_TABLE, text, [report.HEAD, *rows])
    text = _between(_ENDS, text, [ends.HEAD, *itertools.chain(*of_ends)])
    page.write_text(text)
    chart = page.parent / "pictures" / "twins.png"
    report.chart(chart, {name: found for name, (found, _) in twins.items()})


def _between(marks: tuple[str, str], text: str, lines: list[str]) -> str:
    """The text with these lines between the marks."""
    before, _, rest = text.partition(marks[0])
    _, _, after = rest.partition(marks[1])
    return before + "\n".join([marks[0], "", *lines, "", marks[1]]) + after


if __name__ == "__main__":
    main()
