"""The clock of a run: seconds of each part, and the share that waited for data."""

import time

import pytest

from vit_jax.training.clock import Clock


@pytest.fixture
def now(monkeypatch) -> list[float]:
    times = [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: times[0])
    return times


def test_each_part_has_its_seconds_also_if_it_ends_in_an_error(now) -> None:
    clock = Clock()
    for seconds in (2.0, 3.0):
        with pytest.raises(OSError), clock.of("checkpoints"):
            now[0] += seconds
            raise OSError
    with clock.of("evaluations"):
        now[0] += 1.0
    assert clock.seconds == {"data": 0, "compilation": 0, "evaluations": 1, "checkpoints": 5}


def test_the_share_of_waiting_is_that_since_the_last_line_or_restart(now) -> None:
    clock = Clock()
    with clock.of("data"):
        now[0] += 3.0
    now[0] += 1.0
    assert clock.waiting() == pytest.approx(0.75)
    with clock.of("data"):
        now[0] += 5.0
    clock.restart()
    now[0] += 4.0
    assert clock.waiting() == 0
    assert clock.seconds["data"] == 8
