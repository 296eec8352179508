"""Writes the planned cost of each recipe of a paper into its docstring.

    python scripts/plan_recipes.py            all recipes
    python scripts/plan_recipes.py mae.py     one recipe

It needs the TPU compiler (pip install vit_jax[tpu]) and compiles each step (minutes; results are
kept). The paragraph that begins with "Planned cost" is replaced, or added at the end.
"""

import argparse
import ast
import datetime
import pathlib
import re
import textwrap

from vit_jax.commands import configs
from vit_jax.commands.planning import without_start
from vit_jax.planning import compiling, facts, plan, topologies
from vit_jax.planning.job import Job, versions

CONFIGS = pathlib.Path(__file__).resolve().parents[1] / "configs"
WIDTH = 100
BEGINS = "Planned cost"
_QUOTES, _BETWEEN = '"' * 3, "\n\n"
# Recipe, variant, topology and overrides. Only recipes of the size of a paper are planned. Those
# that distil from a teacher or predict tokens are left out: their steps depend on a user's file.
PLANNED: tuple[tuple[str, str, str, tuple[str, ...]], ...] = (
    ("plain_vit.py", "90", "v5e-8", ()),
    ("plain_vit.py", "300", "v5e-8", ()),
    ("mae.py", "B/16", "v5e-64", ()),
    ("mae.py", "L/16", "v5e-64", ()),
    ("mae.py", "H/14", "v5e-64", ()),
    ("mae_finetune.py", "B/16", "v5e-64", ()),
    ("mae_probe.py", "B/16", "v5e-64", ()),
    ("beit_finetune.py", "B/16", "v5e-64", ()),
    ("masked_patch.py", "paper", "v5e-64", ()),
    ("dvae.py", "dalle", "v5e-64", ()),
    ("deit.py", "S/16", "v5e-8", ()),
    ("deit3.py", "B/16", "v5e-64", ()),
    ("augreg.py", "B/16-i1k", "v5e-64", ()),
    ("vit.py", "B/16-i1k", "v5e-64", ()),
    ("vit_finetune.py", "imagenet", "v5e-64", ("--config.model.name=B/16",)),
    ("scaling.py", "G/14", "v5p-512", ("--config.mesh.fsdp=16", "--config.data.name=x")),
)
_OF_JFT = (3_000_000_000, 29_593)  # images and classes of JFT-3B


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("recipes", nargs="*", help="names of files in configs/")
    wanted = parser.parse_args().recipes
    names = dict.fromkeys(name for name, *_ in PLANNED if not wanted or name in wanted)
    if unknown := set(wanted) - set(names):
        raise SystemExit(f"not planned by this script: {', '.join(sorted(unknown))}")
    with compiling.Compiler(limit=3600) as compiler:
        for name in names:
            parts = [_cost(compiler, *rest) for rest in PLANNED if rest[0] == name]
            path = CONFIGS / name
            path.write_text(with_cost(path.read_text(), paragraph(parts)))
            print(f"{path}: {'; '.join(parts)}")


def _cost(
    compiler: compiling.Compiler,
    name: str,
    variant: str,
    topology: str,
    overrides: tuple[str, ...],
) -> str:
    """The cost of a variant, such as `90 on v5e-8 (8 chips) 12.3 hours, MFU 30%`."""
    config = configs.from_file(f"{CONFIGS / name}:{variant}", overrides)
    images, classes = _OF_JFT if name == "scaling.py" else (None, None)
    known = facts.of_config(config, train_size=images, num_classes=classes)
    wanted = topologies.parse(topology)
    found = plan.of_run(compiler, Job(config=without_start(config), facts=known, topology=wanted))
    if found.timeline is None:
        needed, usable = found.result.needed / 2**30, wanted.chip.memory / 2**30
        return f"{variant} does not fit {topology} ({needed:.1f} of {usable:.1f} GiB)"
    return (
        f"{variant} on {topology} ({wanted.chips} chips) {found.hours:,.1f} hours,"
        f" {found.chip_hours:,.0f} chip-hours, MFU {found.mfu:.0%}"
    )


def paragraph(parts: list[str]) -> str:
    """The paragraph for the docstring, wrapped."""
    today = datetime.date.today().isoformat()
    text = (
        f"{BEGINS} ({today}, libtpu {versions()['libtpu']}, predicted and never run, without"
        f" evaluations): {'; '.join(parts)}."
    )
    return textwrap.fill(text, WIDTH, break_long_words=False, break_on_hyphens=False)


def with_cost(source: str, cost: str) -> str:
    """The source of a recipe whose docstring has this paragraph in the place of the old one."""
    first = ast.parse(source).body[0]
    lines = source.splitlines(keepends=True)
    quoted, rest = "".join(lines[: first.end_lineno]), "".join(lines[first.end_lineno :])
    if ast.get_docstring(ast.parse(source)) is None or not quoted.startswith(_QUOTES):
        raise ValueError("the recipe does not begin with a docstring")
    text = quoted.strip().removeprefix(_QUOTES).removesuffix(_QUOTES)
    paragraphs = re.split(r"\n\s*?\n", text.rstrip())
    kept = [one for one in paragraphs if not one.startswith(BEGINS)]
    return f"{_QUOTES}{_BETWEEN.join([*kept, cost])}\n{_QUOTES}\n{rest}"


if __name__ == "__main__":
    main()
