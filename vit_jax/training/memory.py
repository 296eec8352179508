"""The error of a run that does not fit into memory: what it asked for, and what may help."""

import contextlib
from collections.abc import Iterator

import jax

from vit_jax.config import Config
from vit_jax.errors import RunFailed


@contextlib.contextmanager
def explained(config: Config, *, evaluation: bool = False) -> Iterator[None]:
    """Turns an out-of-memory error, of a device or the host, into a RunFailed."""
    try:
        yield
    except (jax.errors.JaxRuntimeError, MemoryError) as error:
        host = isinstance(error, MemoryError)
        if not host and "RESOURCE_EXHAUSTED" not in str(error):
            raise
        place = "the host" if host else f"a device ({jax.devices()[0].device_kind})"
        reason = (str(error) or type(error).__name__).splitlines()[0][:200]
        helps = _evaluation_helps(config) if evaluation else _training_helps(config, host=host)
        raise RunFailed(
            f"out of memory on {place} in {'evaluation' if evaluation else 'training'}: {reason}:"
            f" {_asked_for(config, evaluation=evaluation)}. What helps: {'; '.join(helps)}"
        ) from error


def _asked_for(config: Config, *, evaluation: bool) -> str:
    name = config.model.name or f"the model of {config.init_from}"
    size = "x".join(map(str, (config.image_size * 2)[:2]))
    field, batch = "batch_size", config.batch_size
    if evaluation and config.eval_batch_size:
        field, batch = "eval_batch_size", config.eval_batch_size
    parts = _parts(config) * (1 if evaluation else config.optimizer.accumulate)
    at_once = "" if evaluation or config.optimizer.accumulate == 1 else " at once"
    return (
        f"{name} at {size} with config.{field} {batch}, {max(batch // parts, 1)} images per"
        f" device{at_once} ({jax.device_count()} devices)"
    )


def _training_helps(config: Config, *, host: bool) -> list[str]:
    helps = []
    accumulate = 2 * config.optimizer.accumulate
    if config.batch_size % (accumulate * _parts(config)) == 0:
        helps.append(f"--config.optimizer.accumulate={accumulate} (smaller micro-batches)")
    if config.model.get("remat") != "full":
        helps.append("--config.model.remat=full (recomputes the activations)")
    if 1 < jax.device_count() != config.mesh.fsdp:
        helps.append(f"--config.mesh.fsdp={jax.device_count()} (splits parameters and optimizer)")
    if config.model.get("dtype") != "bfloat16":
        helps.append("--config.model.dtype=bfloat16 (halves the activations)")
    helps.append("a smaller config.batch_size, config.image_size or model")
    if host:
        helps = ["a smaller config.batch_size", "a lower config.data.prefetch", *helps[:-1]]
    return helps


def _evaluation_helps(config: Config) -> list[str]:
    smaller = max((config.eval_batch_size or config.batch_size) // 2, 1)
    helps = [f"--config.eval_batch_size={smaller}"]
    if 1 < jax.device_count() != config.mesh.fsdp:
        helps.append(f"--config.mesh.fsdp={jax.device_count()} (splits the parameters)")
    return helps


def _parts(config: Config) -> int:
    """The number of parts into which the devices split a batch."""
    return max(jax.device_count() // max(config.mesh.tensor, 1), 1)
