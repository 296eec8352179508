"""Options of the compiler, XLA, for a training step: those of the platform, and the user's."""

import os
import re
from collections.abc import Mapping, Sequence

import jax
from jax.sharding import Mesh

# Matrix products are calls of a library, and what is between them is as fast at level 1 of LLVM as
# at its default, 3. So a run begins sooner, with the same bits (docs/performance.md).
_CPU = {"xla_backend_optimization_level": "1"}
# A TPU would else multiply by a split kernel part by part, while it passes the parts around. The
# kernels of vision models are small: to gather them takes half the time.
_TPU_SPLIT = {"xla_jf_spmd_threshold_for_windowed_einsum_mib": "1000000"}
# A TPU would else gather small parts from many devices by a sum of whole kernels, each device's
# part beside zeros: twice the traffic.
_TPU_GATHERED = {"xla_tpu_prefer_async_allgather_to_allreduce": "true"}
# A v5p would else wait for every gather of a kernel (docs/performance.md). A v5e does not.
_TPU_BESIDE = {
    "xla_enable_async_all_gather": "true",
    "xla_tpu_enable_async_collective_fusion": "true",
    "xla_tpu_enable_async_collective_fusion_fuse_all_gather": "true",
}
# KiB of fast memory that an operation may use, by the kind of TPU. With more than the compiler's
# default, its tiles are larger, and less is read twice (docs/performance.md).
_SCOPED = {"TPU v5 lite": "24576", "TPU v5": "32768"}
_UNROLLED = "32768"  # the same, where blocks are unrolled


def check(given: Sequence[str]) -> None:
    """Raises ValueError unless every option is NAME=VALUE."""
    for option in given:
        if not re.fullmatch(r"xla_\w+=[^=\s]+", option):
            raise ValueError(
                f"config.compiler_options has {option!r}: give NAME=VALUE, such as"
                " xla_cpu_enable_fast_min_max=true"
            )


def options(mesh: Mesh, given: Sequence[str] = (), *, unroll: int = 1) -> dict[str, str]:
    """The options for a step on this mesh; `given` ones replace those of the platform.

    `unroll` is the number of blocks in one iteration of the scan.
    """
    device = mesh.devices.flat[0]
    platform, kind = device.platform, device.device_kind
    found = dict(_CPU if platform == "cpu" else {})
    if platform == "tpu" and kind in _SCOPED:
        found["xla_tpu_scoped_vmem_limit_kib"] = _SCOPED[kind] if unroll == 1 else _UNROLLED
    if platform == "tpu" and mesh.shape["fsdp"] * mesh.shape["tensor"] > 1:
        found |= _TPU_SPLIT
    if platform == "tpu" and mesh.shape["fsdp"] > 1:
        found |= _TPU_GATHERED | (_TPU_BESIDE if kind == "TPU v5" else {})
    for option in given:
        name, value = option.split("=")
        if value.lower() in ("true", "false"):
            value = value.lower() if platform == "tpu" else value.capitalize()
        found[name] = value
    return found


def deterministic_on_gpus(given: Sequence[str] = ()) -> bool:
    """Whether XLA_FLAGS, or `given` options in their place, make GPUs repeat every bit."""
    names = "xla_gpu_deterministic_ops", "xla_gpu_exclude_nondeterministic_ops"
    listed = (*os.environ.get("XLA_FLAGS", "").split(), *given)
    found = dict(option.lstrip("-").partition("=")[::2] for option in listed)
    return any(found.get(name, "false").lower() in ("", "true", "1") for name in names)


def check_known(options: dict[str, str]) -> None:
    """Raises ValueError if the compiler of the first device does not know an option."""
    try:
        jax.jit(lambda: 0, compiler_options=options).lower().compile()
    except jax.errors.JaxRuntimeError as error:
        reason = str(error).splitlines()[0].partition(": ")[2]
        raise ValueError(f"config.compiler_options: {reason}") from error


def shown(options: Mapping[str, str]) -> str:
    """A message for the log, or "" if they only make a CPU's compiler quicker."""
    listed = ", ".join(f"{name}={value}" for name, value in sorted(options.items() - _CPU.items()))
    return f"note: the compiler gets {listed}" if listed else ""
