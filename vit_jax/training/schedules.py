"""The learning rate of every step: linear warm-up, decay, and a linear cooldown on top of it."""

import dataclasses
import math
from collections.abc import Callable
from typing import Literal, Protocol

import jax
import jax.numpy as jnp
import optax

from vit_jax import schema
from vit_jax.duration import Duration

# (elapsed, progress) -> rate, float32 () each: the steps of decay so far, and their share of all.
Curve = Callable[[jax.Array, jax.Array], jax.Array]


class Decay(Protocol):
    """An entry of `DECAYS`: a dataclass whose fields are part of the config."""

    def curve(self, peak: float, /, **units: int) -> Curve:
        """The rate after the warm-up, from `peak`; `units` are those of `Duration.to_steps`.

        Raises ValueError for a field out of range.
        """


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cosine:
    """Half a period of a cosine, from the peak to `end_value`."""

    end_value: float = 0.0  # learning rate at the end of the run

    def curve(self, peak: float, /, **units: int) -> Curve:
        end = _checked(self.end_value)

        def rate(elapsed: jax.Array, progress: jax.Array) -> jax.Array:
            left = 0.5 * (1 + jnp.cos(jnp.pi * progress))
            return end + (peak - end) * left

        return rate


@dataclasses.dataclass(frozen=True, kw_only=True)
class Linear:
    """A straight line from the peak to `end_value`."""

    end_value: float = 0.0  # learning rate at the end of the run

    def curve(self, peak: float, /, **units: int) -> Curve:
        end = _checked(self.end_value)
        return lambda elapsed, progress: end + (peak - end) * (1 - progress)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Polynomial:
    """A power of the steps that are left, from the peak to `end_value`."""

    power: float = 2.0  # 1: linear
    end_value: float = 0.0  # learning rate at the end of the run

    def curve(self, peak: float, /, **units: int) -> Curve:
        end = _checked(self.end_value)
        if not 0 < self.power < math.inf:
            raise ValueError(f"config.schedule.power is {self.power}: it must be positive")
        return lambda elapsed, progress: end + (peak - end) * (1 - progress) ** self.power


@dataclasses.dataclass(frozen=True, kw_only=True)
class ReciprocalSqrt:
    """The peak over the root of 1 + steps / timescale (Zhai et al. 2021, section 3.3)."""

    timescale: Duration = Duration(steps=10_000)  # steps after which the rate is peak / sqrt(2)
    # Steps of decay that came before, in another run: the rate begins as it was after them.
    decay_shift: Duration = Duration()

    def curve(self, peak: float, /, **units: int) -> Curve:
        timescale = self.timescale.to_steps(**units)
        if timescale < 1:
            raise ValueError("config.schedule.timescale is 0 steps: rsqrt needs at least 1")
        shift = self.decay_shift.to_steps(**units)
        return lambda elapsed, progress: peak / jnp.sqrt(1 + (elapsed + shift) / timescale)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Constant:
    """The peak rate at every step."""

    def curve(self, peak: float, /, **units: int) -> Curve:
        return lambda elapsed, progress: jnp.float32(peak)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Stairs:
    """The peak times a factor that changes at given steps."""

    # Pairs (step of the decay, factor of the peak from this step on), with growing steps. They are
    # steps of the run if `decay_from` is start.
    stairs: tuple[tuple[int, float], ...] = ()

    def curve(self, peak: float, /, **units: int) -> Curve:
        steps = [step for step, _ in self.stairs]
        if not steps or steps != sorted(set(steps)) or steps[0] < 0:
            raise ValueError(
                f"config.schedule.stairs is {self.stairs}: give pairs (step, factor) with growing"
                " steps, such as ((30000,0.1),(60000,0.01))"
            )
        factors = [1.0, *(_checked(factor, field="stairs") for _, factor in self.stairs)]

        def rate(elapsed: jax.Array, progress: jax.Array) -> jax.Array:
            passed = jnp.searchsorted(jnp.array(steps, jnp.float32), elapsed, side="right")
            return peak * jnp.array(factors, jnp.float32)[passed]

        return rate


DECAYS: dict[str, type[Decay]] = {
    "cosine": Cosine,
    "linear": Linear,
    "polynomial": Polynomial,
    "rsqrt": ReciprocalSqrt,
    "constant": Constant,
    "stairs": Stairs,
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class ScheduleConfig:
    """The learning rate over the run: linear warm-up, then the decay."""

    decay: Decay = schema.choice(DECAYS, "cosine", key="decay")  # the rate after the warm-up
    warmup: Duration = Duration()  # linear to the peak, at the start of the run
    warmup_start: float = 0.0  # learning rate at the first step of the warm-up
    # Where the decay begins: after the warm-up, or at the start of the run as in timm, so that the
    # rate is below its peak when the warm-up ends.
    decay_from: Literal["warmup", "start"] = "warmup"
    # The rate changes only every so often, such as once per epoch (timm); unset: at every step.
    hold: Duration = Duration()
    cooldown: Duration = Duration()  # linear to zero at the end of the run, on top of the decay


def make_schedule(
    schedule: ScheduleConfig, *, peak: float, total_steps: int, batch_size: int, dataset_size: int
) -> optax.Schedule:
    """A function of the step, int () counted from 0, to the learning rate, float32 ().

    rate(step) = decay(step) * min(1, step / warmup) * min(1, (total_steps - step) / cooldown)

    During the warm-up the decay is `peak`, and `warmup_start` lifts the lower end of the line.
    Without it, step 0 of a run with warm-up changes nothing. Step `warmup` is the first with the
    full `peak`. Cosine and linear reach `end_value` at step `total_steps`, the one after the last.
    The original vit_jax and big_vision compute the same; the original vit_jax ends its linear decay
    at 1e-5, for which set `schedule.end_value`.

    Raises ValueError if warm-up and cooldown do not fit into the run.
    """
    units = {"batch_size": batch_size, "dataset_size": dataset_size, "total_steps": total_steps}
    warmup = schedule.warmup.to_steps(**units)
    cooldown = schedule.cooldown.to_steps(**units)
    _check(warmup=warmup, cooldown=cooldown, total=total_steps)
    decay = schedule.decay.curve(peak, **units)

    hold = schedule.hold.to_steps(**units)
    first, start = _checked(schedule.warmup_start, field="warmup_start"), schedule.decay_from
    if first and not warmup:
        raise ValueError(
            f"config.schedule.warmup_start is {first}, and there is no warm-up: set"
            " config.schedule.warmup, or leave it out"
        )
    if warmup and hold >= total_steps:
        raise ValueError(
            f"config.schedule.hold is {hold} steps, the whole run (config.total) is {total_steps}:"
            " the rate would stay at the start of the warm-up; shorten config.schedule.hold"
        )
    begin = warmup if start == "warmup" else 0  # of the decay

    def rate(step: jax.typing.ArrayLike) -> jax.Array:
        step = jnp.asarray(step)
        if hold > 1:  # in whole numbers: a compiled float division may end below the next one
            step -= step % hold
        step = step.astype(jnp.float32)
        elapsed = jnp.maximum(step - begin, 0)  # steps of decay
        progress = jnp.minimum(1, elapsed / max(total_steps - begin, 1))
        value = decay(elapsed, progress)
        if warmup and not begin:
            value = jnp.where(step < warmup, peak, value)
        if warmup:
            warmed = jnp.minimum(1, step / warmup)
            value = value * warmed + first * (1 - warmed) if first else value * warmed
        if cooldown:
            value *= jnp.clip((total_steps - step) / cooldown, 0, 1)
        return value

    return rate


def _checked(rate: float, *, field: str = "end_value") -> float:
    if rate < 0:
        raise ValueError(f"config.schedule.{field} is {rate}: a learning rate is at least 0")
    return rate


def _check(*, warmup: int, cooldown: int, total: int) -> None:
    if warmup and warmup >= total:
        raise ValueError(
            f"config.schedule.warmup is {warmup} steps, the whole run (config.total) is {total}:"
            " shorten the warm-up or lengthen the run"
        )
    if warmup + cooldown > total:
        raise ValueError(
            f"config.schedule.warmup ({warmup} steps) and config.schedule.cooldown ({cooldown})"
            f" overlap in a run (config.total) of {total} steps: shorten one or lengthen the run"
        )
