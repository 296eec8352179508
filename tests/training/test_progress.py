"""What a person sees of a run: the bar, lines without a terminal, and means over a window."""

import contextlib
import fcntl
import json
import os
import select
import struct
import sys
import termios
from collections.abc import Callable, Iterator
from typing import TextIO

import pytest

from vit_jax.training import progress, window


@contextlib.contextmanager
def terminal(columns: int) -> Iterator[tuple[TextIO, Callable[[], str]]]:
    """A terminal of 24 lines to write to, and a function that returns what it was sent."""
    ours, theirs = os.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))

    def sent() -> str:
        found = b""
        while select.select([ours], [], [], 0.2)[0]:
            found += os.read(ours, 2**16)
        return found.decode()

    with os.fdopen(theirs, "w", encoding="utf-8") as file:
        yield file, sent
    os.close(ours)


@pytest.mark.parametrize("columns", [80, 60])
def test_the_bar_has_the_loss_first_then_rate_and_time_left_and_fits(columns, monkeypatch) -> None:
    with terminal(columns) as (screen, sent):
        monkeypatch.setattr(sys, "stderr", screen)
        with progress.Progress(start_step=100, total_steps=15_000, batch_size=4096) as bar:
            bar._bar.start_t -= 10  # as if it had begun 10 seconds ago
            for _ in range(50):
                bar.loss(0.43211)
                bar.advance()
            bar._bar.refresh()
        drawn = [line for line in sent().replace("\n", "\r").split("\r") if line.strip()]
    assert columns - 2 <= max(map(len, drawn)) <= columns, "as wide as the terminal"
    last = drawn[-1]
    assert last.startswith("loss 0.4321, ")
    assert last.index(" images/s, ") < last.index(" left |") < last.index("150/15000")


def test_without_a_terminal_every_update_is_a_line_with_the_time_left(capsys) -> None:
    line = {"loss": 1.25, "loss_last": 1.5, "learning_rate": 1e-3, "grad_norm": 3.0}
    with progress.Progress(start_step=0, total_steps=12500, batch_size=4096) as bar:
        times = {"images_per_second": 2560.0, "data_wait": 0.04}
        bar.show(10000, line | times | {"bad_images": 2})
        bar.show(10001, {"loss": 1.0, "data_wait": 0.35})
        bar.say("done")
    said = capsys.readouterr().err.splitlines()
    assert said == [
        "step 10000/12500: loss 1.25, 2,560 images/s, 1:06:40 left, learning_rate 0.001,"
        " bad_images 2",
        "step 10001/12500: loss 1, 35% waiting for data",
        "done",
    ]
    assert len(said[0].removesuffix(", bad_images 2")) <= 80


def test_a_window_that_was_kept_for_a_checkpoint_goes_on(tmp_path) -> None:
    whole, first = window.Window(), window.Window()
    values = [{"loss": 1 / n, "hits": float(n), "grad_norm": float(n)} for n in (3, 7, 11)]
    for one in values:
        whole.add(one)
    first.add(values[0])
    first.write(tmp_path, step=4, kept=[])
    first.add(values[1])
    first.write(tmp_path, step=5, kept=[4])
    resumed = window.restored(tmp_path, step=5)
    resumed.add(values[2])
    expected = {"loss": (1 / 3 + 1 / 7 + 1 / 11) / 3, "loss_last": 1 / 11, "hits": 7.0}
    assert resumed.line(values[2]) == whole.line(values[2]) == expected | {"grad_norm": 11.0}
    assert json.loads((tmp_path / window.FILE).read_text()).keys() == {"4", "5"}
    assert window.restored(tmp_path, step=4).loss == 1 / 3
    resumed.write(tmp_path, step=6, kept=[5])
    assert json.loads((tmp_path / window.FILE).read_text()).keys() == {"5", "6"}


DAMAGED = ("", "[]", "{", '{"4": 1}', '{"4": {"count": 1, "sums": {"loss": "b"}}}')


@pytest.mark.parametrize("content", DAMAGED)
def test_a_damaged_window_is_an_empty_one(tmp_path, content) -> None:
    (tmp_path / window.FILE).write_text(content)
    found = window.restored(tmp_path, step=4)
    found.add({"loss": 2.0})
    assert found.loss == 2.0
