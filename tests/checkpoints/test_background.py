"""A save that fails in the background raises one error, prints nothing and leaves no files."""

import contextlib
import pathlib
import resource
import shutil
import threading
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from vit_jax.checkpoints import store
from vit_jax.config import CheckpointConfig
from vit_jax.errors import RunFailed

KEEP = CheckpointConfig(keep_last=3, keep_best=1)


def state(size: int) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    arrays = {str(i): rng.normal(size=size).astype(np.float32) for i in range(6)}
    return {"params": arrays, "step": np.int32(0)}


@contextlib.contextmanager
def full_disk() -> Iterator[None]:
    """Limits the size of files to a few bytes. Unlike a small disk, it needs no special rights."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**15, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def names(run: pathlib.Path) -> list[str]:
    return sorted(path.name for path in (run / "checkpoints").iterdir())


FAILED = "checkpoint 2 could not be saved in .*: File too large; checkpoint 1 is kept: remove the"


def test_a_full_disk_is_one_error_and_leaves_nothing(tmp_path, capfd) -> None:
    with store.Store(tmp_path, KEEP) as checkpoints:
        checkpoints.save(1, state(10), {})
        checkpoints.wait()
    with full_disk():
        with store.Store(tmp_path, KEEP) as checkpoints:
            checkpoints.save(2, state(100_000), {})
            with pytest.raises(RunFailed, match=FAILED) as error:
                for _ in range(1000):  # steps
                    checkpoints.check()
                    time.sleep(0.05)
        assert "\n" not in str(error.value)
        assert names(tmp_path) == ["1"]
    kinds = {type(thread).__module__.split(".")[0] for thread in threading.enumerate()}
    assert "orbax" not in kinds
    assert "Traceback" not in capfd.readouterr().err
    with store.Store(tmp_path, KEEP) as checkpoints:
        checkpoints.save(2, state(100_000), {})
    assert names(tmp_path) == ["1", "2"]


def test_a_save_that_fails_last_raises_when_the_store_closes(tmp_path) -> None:
    with full_disk():
        with (
            pytest.raises(RunFailed, match="there is no other checkpoint"),
            store.Store(tmp_path, KEEP) as checkpoints,
        ):
            checkpoints.save(2, state(100_000), {})
        with pytest.raises(KeyError), store.Store(tmp_path, KEEP) as checkpoints:
            checkpoints.save(3, state(100_000), {})
            raise KeyError("the error that ended the run is raised, not that of the save")
    assert names(tmp_path) == []


@pytest.mark.parametrize("instead", ["nothing", "a file"])
def test_a_deleted_folder_ends_the_run_and_is_not_created_again(tmp_path, instead) -> None:
    run = tmp_path / "run"
    with (
        pytest.raises(RunFailed, match="checkpoint 2 was not saved: the folder .* is gone"),
        store.Store(run, KEEP) as checkpoints,
    ):
        checkpoints.save(1, state(10), {})
        checkpoints.wait()
        shutil.rmtree(run)
        if instead == "a file":
            run.write_text("")
        checkpoints.save(2, state(10), {})
    assert run.is_file() if instead == "a file" else not run.exists()
