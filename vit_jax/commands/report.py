"""`report`: one page about one or more runs."""

import argparse
from collections.abc import Sequence

from vit_jax.commands.arguments import count


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("runs", nargs="+", metavar="RUN", help="folders of runs")
    parser.add_argument(
        "-o", "--output", metavar="FILE", help="unset: report.html in the folder of the run"
    )
    parser.add_argument(
        "--no-pictures",
        action="store_true",
        help="leave out the pictures of `figures`, which take most of the time",
    )
    parser.add_argument(
        "--measured", type=count, help="images on which pictures of numbers are measured"
    )


def run(options: argparse.Namespace, _: Sequence[str]) -> int:
    """Write a page about a run, or a comparison of several runs.

    The page needs no network: what each run is, its results, curves, pictures, speed and command.
    Of several runs it also shows what differs in their configs, their results side by side, and
    means over seeds. A run that is not finished can be reported too.
    """
    from vit_jax.commands import reporting

    return reporting.run(options)
