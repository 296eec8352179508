"""The learning rate equals the originals' at every step; nonsense durations are refused."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.compare import assert_close
from tests.parts import schedule_config
from vit_jax.config import Duration, ScheduleConfig
from vit_jax.training.schedules import make_schedule


def rates(schedule: ScheduleConfig, *, peak: float, total_steps: int, **units: int) -> np.ndarray:
    """The rate at steps 0, 1, ... total_steps."""
    units = {"batch_size": 100, "dataset_size": 1000} | units
    fn = make_schedule(schedule, peak=peak, total_steps=total_steps, **units)
    return np.asarray(jax.jit(fn)(jnp.arange(total_steps + 1)))


@pytest.mark.parametrize("decay", ["linear", "cosine"])
@pytest.mark.parametrize("warmup", [0, 10])
def test_schedule_equals_vit_jax(shared, decay, warmup):
    expected = np.load(shared / "fixtures/vitjax_schedule/io.npz")[f"{decay}_warmup{warmup}"]
    end = 1e-5 if decay == "linear" else 0.0
    schedule = schedule_config(decay=decay, warmup=Duration(steps=warmup), end_value=end)
    actual = rates(schedule, peak=0.03, total_steps=200)
    assert_close(actual, expected, rtol=1e-6, atol=1e-7 * 0.03)


BIG_VISION = {
    "cosine_wu": (1e-3, schedule_config(warmup=Duration(steps=30))),
    "cosine_wu_cool": (
        1e-3,
        schedule_config(warmup=Duration(steps=30), cooldown=Duration(steps=50)),
    ),
    "cosine_examples": (1.0, schedule_config(warmup=Duration(examples=3000))),
    "cosine_percent": (1.0, schedule_config(warmup=Duration(percent=10.0))),
    "cosine_epochs_bsscale": (0.1 * 100 / 256, schedule_config(warmup=Duration(epochs=2.0))),
    "rsqrt_wu_cool": (
        1e-3,
        schedule_config(
            decay="rsqrt",
            warmup=Duration(steps=30),
            cooldown=Duration(steps=60),
            timescale=Duration(steps=40),
        ),
    ),
    "rsqrt_default_timescale": (1.0, schedule_config(decay="rsqrt", warmup=Duration(steps=10))),
    "rsqrt_shift": (
        1.0,
        schedule_config(
            decay="rsqrt",
            warmup=Duration(steps=10),
            timescale=Duration(steps=20),
            decay_shift=Duration(steps=15),
        ),
    ),
    "polynomial2": (
        0.01,
        schedule_config(decay="polynomial", power=2.0, warmup=Duration(steps=20), end_value=1e-5),
    ),
    "stair": (
        0.5,
        schedule_config(
            decay="stairs",
            decay_from="start",
            warmup=Duration(steps=10),
            stairs=((60, 0.1), (120, 0.01), (200, 0.001)),
        ),
    ),
    "linear": (0.01, schedule_config(decay="linear", warmup=Duration(steps=20), end_value=1e-4)),
}


@pytest.mark.parametrize("name", BIG_VISION)
def test_schedule_equals_big_vision(shared, name):
    expected = np.load(shared / "fixtures/bv_schedules/io.npz")[name]
    peak, schedule = BIG_VISION[name]
    actual = rates(schedule, peak=peak, total_steps=300)
    assert_close(actual, expected, rtol=1e-6, atol=1e-7 * peak)


@pytest.mark.parametrize(
    ("name", "total", "warmup", "fields"),
    [("deit_300ep", 300, 5, {"decay_from": "start"}), ("prefix", 110, 10, {})],
)
def test_schedule_equals_timm(shared, name, total, warmup, fields):
    expected = np.load(shared / "fixtures/timm_cosine_schedule/io.npz")[name]
    schedule = schedule_config(
        warmup=Duration(steps=warmup), warmup_start=1e-6, end_value=1e-5, **fields
    )
    actual = rates(schedule, peak=0.5, total_steps=total)
    assert_close(actual, expected[: total + 1], rtol=1e-5, atol=1e-7)


def test_every_schedule_of_the_fixture_is_compared(shared):
    assert {*BIG_VISION, "steps"} == set(np.load(shared / "fixtures/bv_schedules/io.npz"))


def test_a_held_rate_changes_once_per_epoch(shared):
    schedule = schedule_config(warmup=Duration(steps=20))
    smooth = rates(schedule, peak=1.0, total_steps=40)
    held = rates(dataclasses.replace(schedule, hold=Duration(epochs=1.0)), peak=1.0, total_steps=40)
    np.testing.assert_array_equal(held, smooth[np.arange(41) // 10 * 10])


@pytest.mark.parametrize("hold", [41, 47, 61, 488])
def test_a_compiled_schedule_changes_a_held_rate_at_the_first_step_of_an_epoch(hold):
    """Division by the length of an epoch would end below some whole numbers."""
    total = 300 * hold
    schedule = make_schedule(
        schedule_config(hold=Duration(steps=hold)),
        **{"peak": 1.0, "total_steps": total, "batch_size": 1, "dataset_size": 1},
    )
    firsts = np.arange(300) * hold
    compiled = jax.jit(jax.vmap(schedule))
    np.testing.assert_array_equal(compiled(firsts), compiled(firsts + hold - 1))
    assert (np.diff(compiled(firsts)) < 0).all()


def test_constant_warms_up_stays_and_cools_down_to_zero():
    schedule = schedule_config(
        decay="constant", warmup=Duration(steps=4), cooldown=Duration(steps=5)
    )
    actual = rates(schedule, peak=2.0, total_steps=20)
    assert_close(actual[:5], [0, 0.5, 1, 1.5, 2], rtol=1e-7)
    assert_close(actual[5:16], 2, rtol=1e-7)
    assert_close(actual[16:], [1.6, 1.2, 0.8, 0.4, 0], atol=1e-6)


def test_cosine_ends_at_the_given_end():
    actual = rates(schedule_config(end_value=1e-3), peak=1.0, total_steps=10)
    assert_close(actual[[0, 5, 10]], [1, 0.5005, 1e-3], rtol=1e-6)


@pytest.mark.parametrize("decay", ["cosine", "linear", "rsqrt", "constant"])
def test_rate_is_float32_and_never_negative_past_the_end(decay):
    schedule = schedule_config(decay=decay, cooldown=Duration(steps=2))
    fn = make_schedule(schedule, peak=1.0, total_steps=5, batch_size=1, dataset_size=1)
    assert fn(7).dtype == jnp.float32
    assert fn(7) == 0


@pytest.mark.parametrize("decay", ["cosine", "linear"])
def test_the_decay_stays_at_its_end(decay):
    schedule = schedule_config(decay=decay, end_value=0.25)
    fn = make_schedule(schedule, peak=1.0, total_steps=4, batch_size=1, dataset_size=1)
    assert [float(fn(step)) for step in (0, 4, 6)] == pytest.approx([1, 0.25, 0.25])


@pytest.mark.parametrize(
    "duration", [Duration(epochs=0.5), Duration(examples=500), Duration(percent=25.0)]
)
@pytest.mark.parametrize("field", ["warmup", "cooldown", "timescale"])
def test_every_duration_of_a_schedule_may_be_given_in_every_unit(field, duration):
    """All of them 5 steps of 100 images, of a run of 20 over 1000."""
    actual, expected = (
        rates(schedule_config(decay="rsqrt", **{field: given}), peak=1.0, total_steps=20)
        for given in (duration, Duration(steps=5))
    )
    np.testing.assert_array_equal(actual, expected)
    other = rates(schedule_config(decay="rsqrt"), peak=1.0, total_steps=20)
    assert not np.array_equal(actual, other)


def test_warmup_and_cooldown_may_fill_the_run():
    schedule = schedule_config(warmup=Duration(steps=6), cooldown=Duration(steps=4))
    assert rates(schedule, peak=1.0, total_steps=10)[6] == 1


@pytest.mark.parametrize(
    ("schedule", "message"),
    [
        (schedule_config(warmup=Duration(steps=10)), r"schedule\.warmup is 10 steps.*is 10"),
        (schedule_config(warmup=Duration(epochs=3.0)), r"schedule\.warmup is 30 steps"),
        (
            schedule_config(warmup=Duration(steps=6), cooldown=Duration(steps=5)),
            r"warmup \(6 steps\) and config\.schedule\.cooldown \(5\) overlap",
        ),
        (schedule_config(decay="rsqrt", timescale=Duration()), r"schedule\.timescale is 0"),
        (schedule_config(end_value=-1e-3), r"schedule\.end_value is -0\.001"),
        (schedule_config(decay="polynomial", power=0.0), r"schedule\.power is 0\.0"),
        (schedule_config(decay="stairs"), r"schedule\.stairs is \(\): give pairs"),
        (schedule_config(decay="stairs", stairs=((5, 0.1), (2, 0.2))), "growing steps"),
        (schedule_config(decay="stairs", stairs=((5, -0.1),)), r"schedule\.stairs is -0\.1"),
        (schedule_config(warmup_start=1e-6), r"warmup_start is 1e-06, and there is no warm-up"),
        (
            schedule_config(warmup=Duration(steps=2), hold=Duration(epochs=1.0)),
            r"schedule\.hold is 10 steps, the whole run .* is 10: the rate would stay",
        ),
    ],
)
def test_schedule_that_does_not_fit_the_run_is_refused(schedule, message):
    with pytest.raises(ValueError, match=message):
        make_schedule(schedule, peak=1.0, total_steps=10, batch_size=100, dataset_size=1000)
