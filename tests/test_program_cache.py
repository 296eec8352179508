"""Compiled programs are kept in a folder of the user, and a problem with it stops nothing."""

import os
import pathlib

import pytest

from tests import cli
from vit_jax import program_cache

# The tests have a cache of their own, in the environment of every process that they start.
PROGRAM = """
import os
for name in ("JAX_COMPILATION_CACHE_DIR", "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"):
    os.environ.pop(name, None)
from vit_jax.__main__ import main
main(["config", "seed"])
import jax
assert jax.config.jax_persistent_cache_min_compile_time_secs == 0.1
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
jax.jit(lambda x: x + 1)(1.0)
"""


def kept(environment: dict[str, str]) -> pathlib.Path | None:
    program_cache.keep_programs(environment)
    folder = environment.get(program_cache.FOLDER)
    return pathlib.Path(folder) if folder is not None else None


def test_a_command_keeps_its_programs_in_the_folder_of_the_users_caches(tmp_path) -> None:
    ended = cli.process(
        program=(*cli.PYTHON, "-c", PROGRAM), settings={"XDG_CACHE_HOME": str(tmp_path)}
    )
    assert ended.returncode == 0, ended.stderr
    assert list((tmp_path / "vit_jax" / "programs").glob("*/jit__lambda*-cache"))


def test_a_folder_or_a_bucket_of_the_user_is_used_instead() -> None:
    environment = {program_cache.FOLDER: "gs://bucket/programs"}
    program_cache.keep_programs(environment)
    assert environment == {program_cache.FOLDER: "gs://bucket/programs"}


@pytest.mark.parametrize("value", ["false", "0", "False"])
def test_it_can_be_turned_off(tmp_path, value) -> None:
    off = {"XDG_CACHE_HOME": str(tmp_path), "JAX_ENABLE_COMPILATION_CACHE": value}
    assert kept(off) is None and not list(tmp_path.iterdir())


def test_a_home_that_cannot_be_written_to_is_no_error(tmp_path) -> None:
    (tmp_path / "file").touch()
    assert kept({"XDG_CACHE_HOME": str(tmp_path / "file")}) is None


@pytest.mark.skipif(not hasattr(os, "getuid"), reason="the permissions of POSIX")
def test_a_folder_that_others_can_write_to_is_not_used(tmp_path) -> None:
    folder = kept({"XDG_CACHE_HOME": str(tmp_path)})
    assert folder is not None and folder.is_dir()
    folder.chmod(0o777)
    assert kept({"XDG_CACHE_HOME": str(tmp_path)}) is None


def test_old_programs_are_removed_and_the_newest_ones_fit(tmp_path) -> None:
    for age in range(5):
        (tmp_path / f"{age}-cache").write_bytes(bytes(10))
        os.utime(tmp_path / f"{age}-cache", (0, 2_000_000_000 - 100 * age))
    program_cache.trim(tmp_path, largest=30, oldest=program_cache.OLDEST)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0-cache", "1-cache", "2-cache"]
    os.utime(tmp_path / "1-cache", (0, 0))
    program_cache.trim(tmp_path, largest=30, oldest=program_cache.OLDEST)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0-cache", "2-cache"]
