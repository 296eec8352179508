"""Names from elsewhere are shown escaped everywhere, and never crash what shows them."""

import json
import os
import sys

import numpy as np
import PIL.Image
import pytest

from tests import cli
from tests.models import tiny
from vit_jax.analysis import figures
from vit_jax.text import printable, printable_json, shortened


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("\x1b[31mred\x1b]0;title\x07", r"\x1b[31mred\x1b]0;title\x07"),
        ("two\nlines\r\u2028and\tmore", r"two\nlines\r\u2028and\tmore"),
        ("\u202egpj.exe\u2066", r"\u202egpj.exe\u2066"),
        ("<script>alert(1)</script>", r"\x3cscript>alert(1)\x3c/script>"),
        (os.fsdecode(b"caf\xe9"), r"caf\udce9"),
        ("\x9b31m\x7f\x00", r"\x9b31m\x7f\x00"),
        ("a < b, 3 <= 4, $x$, naïve, 图, \u3000, \U0001f469\u200d\U0001f680", None),
    ],
)
def test_what_a_terminal_or_a_browser_would_obey_is_escaped(name: str, shown: str | None) -> None:
    assert printable(name) == (name if shown is None else shown)
    text = printable_json({"name": name})
    assert json.loads(text) == {"name": name} and text.isascii() and "<" not in text
    printable(name).encode()


def test_names_that_matplotlib_would_read_as_mathematics_are_drawn_as_they_are() -> None:
    names = ["$a_{", "$\\frac$", "\x1b[31m\n<b>"]
    images = np.zeros((3, 8, 8, 3), np.uint8)
    figure = figures.predictions(images, [(name, 0.5) for name in names], ["x"] * 3)
    titles = [axes.get_title() for axes in figure.axes]
    assert titles[0] == "$a_{ 50%\n(is x)"
    assert titles[2] == "\\x1b[31m\\n\\x3cb> 50%\n(is x)"
    figure.draw_without_rendering()


def test_pictures_of_one_and_four_channels_are_grey() -> None:
    for channels in (1, 4):
        images = np.full((2, 8, 8, channels), 128, np.uint8)
        figure = figures.predictions(images, [("a", 0.5)] * 2, ["a"] * 2)
        drawn = figure.axes[0].images[0]
        assert np.ma.getdata(drawn.get_array()).shape == (8, 8)
        assert drawn.get_clim() == (0, 255) and drawn.get_cmap().name == "gray"


def test_names_reach_no_terminal_raw(tmp_path) -> None:
    """In a process of its own, whose output has an encoding that lacks most letters."""
    name = os.fsdecode(b"x\x1b[31m\x07\xe9\xc3\xa9.png")
    (tmp_path / name).write_bytes(b"no image")
    model = tmp_path / "m.npz"
    script = (
        "import vit_jax; m = vit_jax.create('Ti/8', image_size=16, width=16, depth=1, mlp_dim=16,"
        f" num_heads=1, num_classes=2); vit_jax.save(m, {str(model)!r})\n"
        "from vit_jax.__main__ import main\nimport sys\nsys.exit(main(sys.argv[1:]))"
    )
    arguments = ["predict", "--workdir", model, tmp_path / name, tmp_path / "\x1b]gone.png"]
    program, settings = (*cli.PYTHON, "-c", script), {"PYTHONIOENCODING": "ascii"}
    done = cli.process(*arguments, program=program, settings=settings)
    lines = done.stderr.splitlines()
    assert done.returncode == 2 and len(lines) == 2 and done.stderr.isascii(), lines
    assert r"x\x1b[31m\x07\udce9\xe9.png: cannot decode" in lines[0]
    assert r"\x1b]gone.png: there is no such file or folder" in lines[1]


def test_a_table_and_a_report_reach_no_terminal_raw(tmp_path, capsys, monkeypatch) -> None:
    """A program that reads the table gets the exact name."""
    model, name = tiny.saved(tmp_path, image_size=(16, 24)), "a\x1b[31m.png"
    PIL.Image.new("RGB", (24, 16)).save(tmp_path / name)
    for is_terminal in (True, False):
        monkeypatch.setattr(sys.stdout, "isatty", lambda of=is_terminal: of)
        assert cli.run("predict", "--workdir", model, "--csv", "-", tmp_path / name) == 0
        lines = capsys.readouterr().out.split("\n")
        assert len(lines) == 3 and lines[0].startswith("image,status,")
        assert ("\x1b" not in lines[1]) == is_terminal
        assert (r"a\x1b[31m.png,ok," if is_terminal else f"{name},ok,") in lines[1]
    target = tmp_path / "evil\x1b[31m.npz"
    assert cli.run("convert", model, target, "--layout", "vit_jax") == 0
    report = capsys.readouterr().out
    assert r"evil\x1b[31m.npz" in report and "\x1b" not in report and report.count("\n") > 1


def test_a_text_is_shortened_only_beyond_the_limit() -> None:
    assert shortened("x" * 80) == "x" * 80
    assert shortened("x" * 81) == "x" * 80 + "..."
