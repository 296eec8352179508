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
    clock = Clock(step=0)
    for seconds in (2.0, 3.0):
        with pytest.raises(OSError), clock.of("checkpoints"):
            now[0] += seconds
            raise OSError
    with clock.of("evaluations"):
        now[0] += 1.0
    assert clock.seconds == {"data": 0, "compilation": 0, "evaluations": 1, "checkpoints": 5}


def test_the_speed_is_that_since_the_last_line_or_restart(now) -> None:
    now[0] = 100.0
    clock = Clock(step=10)
    with clock.of("data"):
        now[0] += 3.0
    now[0] += 1.0
    assert clock.speed(30) == (5.0, 0.75), "20 steps in 4 seconds, of which 3 waited for data"
    with clock.of("data"):
        now[0] += 5.0
    clock.restart(31)
    now[0] += 4.0
    assert clock.speed(33) == (0.5, 0.0)
    now[0] += 1.0
    assert clock.speed(35) == (2.0, 0.0)
    assert clock.seconds["data"] == 8


def test_compilation_does_not_count_as_time_of_steps(now) -> None:
    clock = Clock(step=0)
    with clock.of("compilation"):
        now[0] += 60.0
    now[0] += 2.0
    assert clock.speed(1) == (0.5, 0.0)
    with clock.of("compilation"):
        now[0] += 30.0
    now[0] += 4.0
    assert clock.speed(3) == (0.5, 0.0)
