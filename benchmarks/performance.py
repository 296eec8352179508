"""Runs the benchmarks of this folder and writes their output to docs/performance.md.

    python benchmarks/performance.py --timm-python PATH

Run it on an idle machine: all figures between the markers of the page come from this one run.
"""

import argparse
import datetime
import importlib.metadata
import os
import pathlib
import platform
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parent
PAGE = HERE.parent / "docs" / "performance.md"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--timm-python", default=sys.executable)
    parser.add_argument("--rounds", type=int, default=9)
    flags = parser.parse_args()
    timm = ["--timm-python", flags.timm_python, "--rounds", str(flags.rounds)]
    page = PAGE.read_text() if PAGE.exists() else "# Performance\n"
    for name, arguments in (
        ("dispatch", []),
        ("compile_time", []),
        ("startup", ["--rounds", str(flags.rounds)]),
        ("cpu_against_timm", timm),
    ):
        page = replace(page, name, measure(name, arguments))
    page = replace(page, "machine", machine(flags.timm_python))
    PAGE.write_text(page)
    print(PAGE)


def measure(name: str, arguments: list[str]) -> str:
    command = [sys.executable, str(HERE / f"{name}.py"), *arguments]
    environment = os.environ | {"JAX_PLATFORMS": "cpu"}
    print(" ".join(command), flush=True)
    return subprocess.run(
        command, env=environment, stdout=subprocess.PIPE, text=True, check=True
    ).stdout.strip()


def replace(page: str, name: str, text: str) -> str:
    """Puts a measurement between its two markers; the text around it stays."""
    begin, end = f"<!-- {name} -->", f"<!-- /{name} -->"
    before, found, rest = page.partition(begin)
    after = rest.partition(end)[2] if found else "\n"
    return f"{before}{begin}\n{text}\n{end}{after}"


def machine(timm_python: str) -> str:
    versions = [f"{name} {importlib.metadata.version(name)}" for name in ("jax", "flax", "numpy")]
    script = (
        "from importlib.metadata import version as v; print(v('torch') + ', timm ' + v('timm'))"
    )
    peer = subprocess.run([timm_python, "-c", script], capture_output=True, text=True, check=True)
    versions.append(f"torch {peer.stdout.strip()}")
    return (
        f"{datetime.date.today()}, {os.cpu_count()} cores, {platform.machine()},"
        f" Python {platform.python_version()}, {', '.join(versions)}."
    )


if __name__ == "__main__":
    main()
