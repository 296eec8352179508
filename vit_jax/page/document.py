"""The text of a page, from sections of tables, charts and pictures."""

import base64
import dataclasses
import functools
import gzip
import importlib.util
import json
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from vit_jax.workdir import place

INSTALL = "pip install vit_jax[report]"

Rows = Sequence[Sequence[str]]  # of a table; the first one is its head


@dataclasses.dataclass(frozen=True, kw_only=True)
class Section:
    """A part of a page. What is empty is left out."""

    name: str = ""
    lines: Sequence[str] = ()
    facts: Mapping[str, str] = dataclasses.field(default_factory=dict)  # by what they are about
    commands: Sequence[str] = ()  # to copy into a terminal, the oldest first
    warnings: Sequence[str] = ()
    tables: Mapping[str, Rows] = dataclasses.field(default_factory=dict)  # by title
    charts: Mapping[str, Any] = dataclasses.field(default_factory=dict)  # Plotly figures by title
    pictures: Mapping[str, str] = dataclasses.field(default_factory=dict)  # data: URLs by title
    in_columns: bool = False  # whether charts stand side by side where the page is wide


def is_installed() -> bool:
    """Whether the libraries that draw pages are installed."""
    return all(map(importlib.util.find_spec, ("jinja2", "plotly")))


def check_installed(option: str) -> None:
    """Raises ValueError, which names the option, unless pages can be drawn."""
    if not is_installed():
        raise ValueError(f"{option} needs Plotly and Jinja2: {INSTALL}")


def render(*, title: str, note: str, sections: Sequence[Section]) -> str:
    """The text of a page. Texts may come from untrusted names: they are shown as they are."""
    import jinja2

    folder = jinja2.FileSystemLoader(pathlib.Path(__file__).parent)
    template = jinja2.Environment(loader=folder, autoescape=True).get_template("page.html")
    return template.render(
        title=title,
        note=note,
        plotly=_plotly() if any(section.charts for section in sections) else "",
        sections=[{**vars(section), "charts": _drawn(section.charts)} for section in sections],
    )


def picture(data: bytes, kind: str) -> str:
    """The bytes of a picture, such as a PNG, as a data: URL."""
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


def write(path: str | os.PathLike[str], text: str) -> None:
    """Writes a page whole, and its folder. Raises ValueError if that fails."""
    place.write_output(path, text.encode("utf-8", "backslashreplace"))


@functools.cache
def _plotly() -> str:
    """Plotly's JavaScript, packed: as it is, it would take most of the 5 MB of a page."""
    from plotly import offline

    packed = gzip.compress(offline.get_plotlyjs().encode(), mtime=0)
    return base64.b64encode(packed).decode()


def _drawn(charts: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [
        {"title": title, "height": figure.layout.height, "figure": json.loads(figure.to_json())}
        for title, figure in charts.items()
    ]
