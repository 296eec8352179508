"""Shared by all tests: the folder of reference inputs and outputs, and strict JAX settings."""

import pathlib
import signal

import jax
import pytest

from tests import compiled, runs

SHARED = pathlib.Path(__file__).resolve().parents[2] / "shared"

jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_numpy_dtype_promotion", "strict")
# Simulated devices, for tests of the mesh. A setting, not an environment variable, which the
# processes that tests start would inherit.
jax.config.update("jax_num_cpu_devices", 8)

compiled.keep_programs()

# A shell's background job ignores SIGINT, and so would the processes that tests start and signal.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
if signal.getsignal(signal.SIGHUP) == signal.SIG_IGN:
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


@pytest.fixture(scope="session")
def shared() -> pathlib.Path:
    """The folder with `fixtures/` and `data/`; the test is skipped where it is absent."""
    if not SHARED.is_dir():
        pytest.skip(f"no reference data: {SHARED} is absent")
    return SHARED


@pytest.fixture(scope="module")
def recipe(tmp_path_factory) -> pathlib.Path:
    """The tiny recipe of `runs`, as a file."""
    return runs.write_recipe(tmp_path_factory.mktemp("recipe"))
