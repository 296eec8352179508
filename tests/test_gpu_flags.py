"""Runs on GPUs repeat their bits: the flags for it are set where they can matter."""

import importlib.util

import pytest

from vit_jax import __main__ as program

SAME_BITS = "--xla_gpu_deterministic_ops=true"
CUBLAS = "--xla_gpu_enable_triton_gemm=false"
TRITON = "--xla_gpu_enable_triton_gemm=true"


@pytest.mark.parametrize(
    ("plugin", "before", "after"),
    [
        ("jax_cuda13_plugin", None, f"{SAME_BITS} {CUBLAS}"),
        ("jax_cuda12_plugin", "--xla_a=1", f"--xla_a=1 {SAME_BITS} {CUBLAS}"),
        ("jax_cuda12_plugin", TRITON, f"{TRITON} {SAME_BITS}"),
        ("jax_cuda13_plugin", "--xla_gpu_deterministic_ops=false", None),
        ("", "--xla_a=1", None),
    ],
)
def test_the_flags_are_added_where_a_cuda_plugin_is_installed(
    plugin, before, after, monkeypatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name == plugin or None)
    monkeypatch.delenv("XLA_FLAGS", raising=False)
    if before is not None:
        monkeypatch.setenv("XLA_FLAGS", before)
    program.repeat_on_gpus()
    assert program.os.environ.get("XLA_FLAGS") == (after or before)
