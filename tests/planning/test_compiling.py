"""The processes that compile: limits, cancellation, what is kept, and what a user reads."""

import concurrent.futures
import dataclasses
import gzip
import json
import os
import sys
import threading
import time
import types
from typing import Any

import numpy as np
import pytest

from tests.patience import limit
from tests.planning.test_search import STEP, job
from vit_jax import program_cache
from vit_jax.errors import RunFailed
from vit_jax.planning import changes, compiling, plan, search
from vit_jax.planning import job as job_lib
from vit_jax.planning import worker as worker_lib
from vit_jax.planning.job import Result
from vit_jax.planning.topologies import Topology
from vit_jax.training import compute

ANSWERS = """
import gzip, os, pathlib, sys, time
for line in sys.stdin:
    {action}
"""


@pytest.fixture
def worker(monkeypatch, tmp_path):
    """Replaces the program of the workers by a few lines; the TPU compiler takes too long."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(compiling, "check_installed", lambda platform: None)
    start = compiling.subprocess.Popen

    def use(action: str) -> None:
        program = [sys.executable, "-c", ANSWERS.format(action=action)]
        monkeypatch.setattr(
            compiling.subprocess,
            "Popen",
            lambda given, **settings: start([*program, given[-1]], **settings),
        )

    return use


def answer(result: Result) -> str:
    return f"print({job_lib.result_to_json(result)!r}, flush=True)"


def compiles(needed: float = 5.0) -> str:
    """The program of a worker that finds these bytes and writes the program's text."""
    write = "(pathlib.Path(sys.argv[1]) / 'p.hlo.gz').write_bytes(gzip.compress(b'a text'))"
    return f"{write}; {answer(Result(step=STEP, program='p', needed=needed))}"


def test_a_result_is_kept(worker) -> None:
    worker(compiles())
    with compiling.Compiler() as compiler:
        assert compiler.one(job()).needed == 5
    worker("os.abort()")
    with compiling.Compiler() as compiler:
        result = compiler.one(job())
        assert result.step == STEP and compiler.text(result) == "a text"


def test_a_result_whose_program_was_removed_is_compiled_again(worker) -> None:
    worker(compiles())
    with compiling.Compiler() as compiler:
        compiler.one(job())
        compiler.one(dataclasses.replace(job(), probe=True))
    (compiling.cache_folder() / "p.hlo.gz").unlink()
    worker(compiles(needed=6.0))
    with compiling.Compiler() as compiler:
        result = compiler.one(job())
        assert result.needed == 6 and compiler.text(result) == "a text"
        probe = dataclasses.replace(job(), probe=True)
        assert compiler.one(probe).needed == 5  # the memory of a probe is all that is asked for


def test_without_a_cache_that_can_be_written_results_are_not_kept(
    worker, monkeypatch, tmp_path
) -> None:
    worker(compiles())
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    said: list[str] = []
    with compiling.Compiler(report=said.append) as compiler:
        result = compiler.one(job())
        assert result.needed == 5 and compiler.text(result) == "a text"
    assert said[0].startswith("plans are not kept (Not a directory): set XDG_CACHE_HOME")


def test_a_result_that_does_not_fit_has_no_program_and_is_kept(worker) -> None:
    worker(answer(Result(step=STEP, program="p", needed=1e12, fits=False)))
    with compiling.Compiler() as compiler:
        compiler.one(job())
    worker("os.abort()")
    with compiling.Compiler() as compiler:
        assert not compiler.one(job()).fits


WHOLE = job_lib.result_to_json(Result(step=STEP, program="p", needed=5.0))


@pytest.mark.parametrize(
    "content",
    [
        *(b"", b"{", b"{}", b"[]", b"null", b"\xff", b"[" * 100_000, WHOLE[:-9].encode()),
        json.dumps(json.loads(WHOLE) | {"step": 5}).encode(),
        json.dumps(json.loads(WHOLE) | {"new_field": 1}).encode(),
    ],
)
def test_a_kept_result_that_cannot_be_read_is_compiled_again(worker, content) -> None:
    worker(compiles())
    with compiling.Compiler() as compiler:
        compiler.one(job())
    (kept,) = compiling.cache_folder().glob("*.json")
    kept.write_bytes(content)
    with compiling.Compiler() as compiler:
        assert compiler.one(job()).needed == 5
    assert kept.read_text() == WHOLE


def test_what_a_plan_used_is_not_the_oldest_in_the_cache(tmp_path) -> None:
    job_lib.keep(tmp_path, "used", Result(program="used"))
    job_lib.keep(tmp_path, "other", Result(program="other"))
    for name in ("used", "other"):
        job_lib.text_path(tmp_path, name).write_bytes(gzip.compress(b"a text"))
    for file in tmp_path.iterdir():
        os.utime(file, (0, time.time() - 2e6))
    assert job_lib.kept(tmp_path, "used", with_text=True)
    program_cache.trim(tmp_path, oldest=1e6)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["used.hlo.gz", "used.json"]


def test_threads_with_the_same_job_compile_it_once(worker, tmp_path) -> None:
    log = tmp_path / "log"
    worker(f"open({str(log)!r}, 'a').write('compiled,'); time.sleep(0.5); {compiles()}")
    with compiling.Compiler(processes=2) as compiler:
        found = compiler.each(compiler.one, [job(), job()])
    assert log.read_text() == "compiled," and [one.needed for one in found] == [5, 5]


def test_threads_that_keep_the_same_result_do_not_disturb_each_other(tmp_path) -> None:
    def keep(_: int) -> None:
        job_lib.keep(tmp_path, "key", Result(step=STEP))
        assert job_lib.kept(tmp_path, "key", with_text=False)

    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        list(pool.map(keep, range(200)))
    assert [file.name for file in tmp_path.iterdir()] == ["key.json"]


@pytest.mark.parametrize(
    ("action", "message"),
    [
        ("print('E0102 a reason', file=sys.stderr); os.abort()", "SIGABRT.*v5e-8.*a reason"),
        ("sys.exit(3)", "exit code 3"),
        ("time.sleep(60)", "more than 1 seconds.*--limit"),
    ],
)
def test_a_compiler_that_ends_or_hangs_is_one_line(worker, action, message) -> None:
    worker(action)
    seconds = 1 if "more than" in message else 600  # Python starts within the limit
    with compiling.Compiler(limit=seconds) as compiler, pytest.raises(RunFailed, match=message):
        compiler.one(job())


def test_a_config_that_cannot_be_designed_is_bad_input_every_time(worker) -> None:
    worker(answer(Result(failure="no such mesh", bad_input=True)))
    for _ in range(2):
        with compiling.Compiler() as compiler, pytest.raises(ValueError, match="no such mesh"):
            compiler.one(job())


@pytest.mark.parametrize("order", [1, -1])
def test_an_error_ends_what_still_compiles(worker, order) -> None:
    worker("time.sleep(60)")
    began = time.monotonic()

    def function(wanted) -> Result:
        if wanted is None:
            time.sleep(0.5)
            raise ValueError("stop")
        return compiler.one(wanted)

    with compiling.Compiler(processes=2) as compiler, pytest.raises(ValueError, match="stop"):
        compiler.each(function, [None, job()][::order])
    assert time.monotonic() - began < 30


def test_an_error_ends_a_compiler_that_only_starts(worker, monkeypatch) -> None:
    """Its process is not among those that compile yet."""
    worker("time.sleep(60)")
    failing, ended = threading.Event(), threading.Event()
    start, end = compiling._Worker.__init__, compiling.Compiler._end

    def slowly(*given: Any) -> None:
        start(*given)
        failing.set()
        assert ended.wait(limit(20))

    def end_all(compiler: compiling.Compiler) -> None:
        end(compiler)
        ended.set()

    monkeypatch.setattr(compiling._Worker, "__init__", slowly)
    monkeypatch.setattr(compiling.Compiler, "_end", end_all)

    def function(wanted) -> Result:
        if wanted is None:
            assert failing.wait(limit(20))
            raise ValueError("stop")
        return compiler.one(wanted)

    with compiling.Compiler(limit=3600) as compiler, pytest.raises(ValueError, match="stop"):
        compiler.each(function, [None, job()])


def test_a_job_arrives_as_it_was_sent() -> None:
    sent = job("2xv5e-16")
    arrived = job_lib.of_json(sent.to_json())
    assert arrived == sent and arrived.key == sent.key
    assert json.loads(sent.to_json())["topology"] == "2xv5e:4x4"


def test_jobs_that_differ_have_different_keys() -> None:
    jobs = [job(), job("v5e-16"), job(batch_size=1024)]
    assert len({one.key for one in jobs}) == 3


@pytest.mark.parametrize("name", ["LIBTPU_INIT_ARGS", "XLA_FLAGS", "JAX_OPTIMIZATION_LEVEL"])
def test_other_flags_of_the_compiler_are_another_key(monkeypatch, name) -> None:
    before = job().key
    monkeypatch.setenv(name, "--another=1")
    assert job().key != before


def test_other_flags_and_options_of_the_compiler_are_another_program(monkeypatch) -> None:
    lowered = types.SimpleNamespace(as_text=lambda: "the same text")
    mesh = types.SimpleNamespace(devices=np.zeros((0,)))
    design = types.SimpleNamespace(mesh=mesh, compiler_options={})

    def digest() -> str:
        return worker_lib._digest(job(), design, lowered)

    first = digest()
    assert digest() == first
    with monkeypatch.context() as changed:
        changed.setenv("LIBTPU_INIT_ARGS", "--another=1")
        assert digest() != first
    monkeypatch.setattr(Topology, "compiler_options", {"another": 1})
    assert digest() != first


@pytest.mark.parametrize(
    "name",
    [
        *("JAX_PLATFORMS", "JAX_COMPILATION_CACHE_DIR", "JAX_ENABLE_COMPILATION_CACHE"),
        *("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "HOME"),
    ],
)
def test_where_programs_are_kept_and_the_devices_here_change_no_key(monkeypatch, name) -> None:
    before = job().key
    monkeypatch.setenv(name, "/another")
    assert job().key == before


@pytest.mark.parametrize(
    ("source", "matters"),
    [("planning/topologies.py", True), ("models/vit.py", True), ("planning/table.py", False)],
)
def test_a_key_depends_on_the_source_that_makes_the_program(
    monkeypatch, tmp_path, source, matters
) -> None:
    package = tmp_path / "vit_jax"
    for name in ("planning/topologies.py", "planning/table.py", "models/vit.py", "__init__.py"):
        (package / name).parent.mkdir(parents=True, exist_ok=True)
        (package / name).touch()
    monkeypatch.setattr(job_lib.vit_jax, "__file__", str(package / "__init__.py"))
    before = job().key
    (package / source).write_text("changed = True\n")
    assert (job().key != before) == matters


def test_a_search_does_not_compile_the_step_of_the_config_again(worker) -> None:
    worker(answer(Result(step=STEP, needed=5.0)))  # all candidates have this step
    with compiling.Compiler(processes=2) as compiler:
        compiled, probed = search.fastest(compiler, job())
    assert len(probed) == 12 and not compiled


def test_blocks_that_take_too_long_to_compile_are_planned_as_scanned(worker, monkeypatch) -> None:
    unrolled = dataclasses.replace(STEP, unroll=12)
    probed = job_lib.result_to_json(Result(step=unrolled, needed=5.0))
    scanned = job_lib.result_to_json(Result(step=STEP, needed=1e12, fits=False))
    lines = [
        f"if '\"probe\": true' in line: print({probed!r}, flush=True)",
        f"elif '\"unroll\": 1' in line: print({scanned!r}, flush=True)",
        "else: time.sleep(60)",
    ]
    worker("\n    ".join(lines))
    for blocks_take in (30.0, 0.1):  # as is expected, and as is found
        monkeypatch.setattr(compute, "COMPILING", blocks_take)
        with compiling.Compiler(limit=5) as compiler:
            made = plan.make(compiler, job())
        assert made.hurried and made.step.unroll == 1
    assert "scanned blocks" in made.warnings()[0] and "--limit" in made.warnings()[0]
    chosen = changes.changed(job().config, {"model.unroll": 24})
    with compiling.Compiler(limit=2) as compiler, pytest.raises(compiling.TookTooLong):
        plan.make(compiler, dataclasses.replace(job("v5e-16"), config=chosen))


def test_a_step_that_the_compiler_cannot_probe_is_compiled(worker) -> None:
    answers = [Result(failure="INTERNAL"), Result(step=STEP, needed=1e12, fits=False)]
    probed, compiled = map(job_lib.result_to_json, answers)
    worker(f"print({probed!r} if '\"probe\": true' in line else {compiled!r}, flush=True)")
    with compiling.Compiler() as compiler:
        found = plan.make(compiler, job())
    assert found.result.needed == 1e12 and found.timeline is None
