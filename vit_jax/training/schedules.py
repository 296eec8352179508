"""The learning rate of every step: linear warm-up, decay, and a linear cooldown on top of it."""

import jax
import jax.numpy as jnp
import optax

from vit_jax.config import ScheduleConfig


def make_schedule(
    schedule: ScheduleConfig, *, peak: float, total_steps: int, batch_size: int, dataset_size: int
) -> optax.Schedule:
    """A function of the step, int () counted from 0, to the learning rate, float32 ().

    rate(step) = decay(step) * min(1, step / warmup) * min(1, (total_steps - step) / cooldown)

    The decay is `peak` until the warm-up is over and starts there. So step 0 of a run with warm-up
    moves nothing, step `warmup` is the first with the full `peak`, and cosine and linear would
    reach `end` at step `total_steps`, one after the last. This is what both vit_jax and big_vision
    compute; where vit_jax ends its linear decay at 1e-5 unasked, set `schedule.end`.

    Raises ValueError if warm-up and cooldown do not fit into the run.
    """
    units = {"batch_size": batch_size, "dataset_size": dataset_size, "total_steps": total_steps}
    warmup = schedule.warmup.to_steps(**units)
    cooldown = schedule.cooldown.to_steps(**units)
    timescale = schedule.timescale.to_steps(**units)
    _check(schedule, warmup=warmup, cooldown=cooldown, timescale=timescale, total=total_steps)

    def rate(step: jax.typing.ArrayLike) -> jax.Array:
        step = jnp.asarray(step, jnp.float32)
        elapsed = jnp.maximum(step - warmup, 0)  # steps of decay
        progress = jnp.minimum(1, elapsed / max(total_steps - warmup, 1))
        match schedule.decay:
            case "cosine":
                left = 0.5 * (1 + jnp.cos(jnp.pi * progress))
                value = schedule.end + (peak - schedule.end) * left
            case "linear":
                value = schedule.end + (peak - schedule.end) * (1 - progress)
            case "rsqrt":  # Zhai et al. 2021, section 3.3
                value = peak / jnp.sqrt(1 + elapsed / timescale)
            case "constant":
                value = jnp.float32(peak)
        if warmup:
            value *= jnp.minimum(1, step / warmup)
        if cooldown:
            value *= jnp.clip((total_steps - step) / cooldown, 0, 1)
        return value

    return rate


def _check(
    schedule: ScheduleConfig, *, warmup: int, cooldown: int, timescale: int, total: int
) -> None:
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
    if schedule.decay == "rsqrt" and timescale < 1:
        raise ValueError("config.schedule.timescale is 0 steps: rsqrt needs at least 1")
    if schedule.end < 0:
        raise ValueError(f"config.schedule.end is {schedule.end}: a learning rate is at least 0")
