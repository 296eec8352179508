"""Shared by all tests: the folder of reference inputs and outputs, and strict JAX settings."""

import gc
import pathlib
import re
import signal
from collections.abc import Callable, Iterator

import jax
import pytest

from tests import cli, compiled, runs
from vit_jax import __main__ as program
from vit_jax.parallel import rules

# Files whose few tests take longest. They come first, so that at the end of a parallel run no
# worker is left alone with one of them: `make test` hands out whole files in this order.
SLOW = (
    "test_multiprocess.py",
    "test_buckets.py",
    "parallel/test_tpu_programs.py",
    "extending/test_training.py",
    "training/test_design.py",
    "training/test_loop.py",
    "fuzz/test_fuzz.py",
    "training/test_resume.py",
    "checkpoints/test_reads_back.py",
    "test_signals.py",
    "test_golden.py",
    "training/test_evaluation.py",
    "training/test_frozen.py",
    "commands/test_commands.py",
    "training/test_length.py",
    "extending/test_page.py",
    "test_broken_images.py",
    "objectives/test_dvae.py",
    "objectives/test_beit_runs.py",
    "training/test_teacher_file.py",
    "objectives/test_mae.py",
    "training/test_progressive.py",
    "training/test_several_labels.py",
    "test_twins.py",
)
SHARED = pathlib.Path(__file__).resolve().parents[2] / "shared"

jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_numpy_dtype_promotion", "strict")
# Simulated devices, for tests of the mesh. A setting, not an environment variable, which the
# processes that tests start would inherit.
jax.config.update("jax_num_cpu_devices", 8)

# The parameters of the tests' tiny models are split by `fsdp` too.
rules.SMALLEST = 1

compiled.keep_programs()
gc.set_threshold(program.COLLECT_EVERY)  # as in a process of `vit_jax`

# A shell's background job ignores SIGINT, and so would the processes that tests start and signal.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
if signal.getsignal(signal.SIGHUP) == signal.SIG_IGN:
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    def rank(item: pytest.Item) -> int:
        name = item.path.as_posix().removeprefix(f"{runs.ROOT}/tests/")
        return SLOW.index(name) if name in SLOW else len(SLOW)

    items.sort(key=rank)  # stable: within a file, and among all others, the order stays


@pytest.fixture(autouse=True, scope="module")
def _little_memory() -> Iterator[None]:
    """Lets a process that has grown large forget what the tests of a module compiled."""
    yield
    compiled.forget(above=7 * 2**28)


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


@pytest.fixture(scope="module")
def command(tmp_path_factory) -> cli.CommandLine:
    """The same recipe, in a folder for runs that processes of their own train."""
    return cli.CommandLine(tmp_path_factory.mktemp("command"))


@pytest.fixture
def printed(capsys) -> Callable[..., str]:
    """Runs a command that must succeed, in this process, and returns what it prints on stdout."""

    def check(*arguments: object) -> str:
        capsys.readouterr()
        assert cli.run(*arguments) == 0
        return capsys.readouterr().out

    return check


@pytest.fixture
def refused(capsys) -> Callable[..., str]:
    """Runs a command that must end with exit code 2 and one line, which is returned.

    It may change nothing in `folder` nor create it, where one is given.
    """

    def check(*arguments: object, folder: pathlib.Path | None = None) -> str:
        before = folder and (folder.exists(), runs.listing(folder))
        capsys.readouterr()
        code = cli.run(*arguments)
        output, errors = capsys.readouterr()
        assert (code, output) == (2, "")
        assert re.fullmatch(r"vit_jax( \w+)*: .+\n", errors), errors
        assert before == (folder and (folder.exists(), runs.listing(folder)))
        return errors

    return check
