"""Joining a job: where the settings come from, what is refused, and two real processes."""

import os
import pathlib
import time

import jax
import numpy as np
import pytest

from launch import local
from tests import cli
from vit_jax import stopping
from vit_jax.data import batches
from vit_jax.data.bad_images import BadImages
from vit_jax.errors import NotReady
from vit_jax.parallel import multihost

ROOT = pathlib.Path(__file__).resolve().parents[2]
VARIABLES = ("VIT_JAX_", "SLURM_", "TPU_", "MEGASCALE_", "CUDA_VISIBLE_DEVICES")


@pytest.fixture(name="joined")
def _joined(monkeypatch: pytest.MonkeyPatch) -> list[tuple[tuple, dict]]:
    """The calls of jax.distributed.initialize, which does nothing, in a clean environment."""
    calls: list[tuple[tuple, dict]] = []
    for name in [name for name in os.environ if name.startswith(VARIABLES)]:
        monkeypatch.delenv(name)
    monkeypatch.setattr(jax.distributed, "initialize", lambda *a, **k: calls.append((a, k)))
    return calls


def set_environment(monkeypatch: pytest.MonkeyPatch, **values: str) -> None:
    for name, value in values.items():
        monkeypatch.setenv(name, value)


def test_a_process_without_settings_is_alone(joined: list) -> None:
    multihost.initialize()
    assert joined == []
    assert multihost.is_primary()
    assert [multihost.agree(True), multihost.agree(False)] == [True, False]


def test_one_process_needs_no_coordinator(joined: list) -> None:
    multihost.initialize(coordinator="10.0.0.1:1234", num_processes=1, process_id=0)
    assert joined == []


def test_arguments_come_before_the_environment(
    joined: list, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_environment(
        monkeypatch,
        VIT_JAX_COORDINATOR="10.0.0.1:1234",
        VIT_JAX_NUM_PROCESSES="4",
        VIT_JAX_PROCESS_ID="1",
    )
    multihost.initialize(process_id=3)
    assert joined == [(("10.0.0.1:1234", 4, 3), {"cluster_detection_method": "deactivate"})], (
        "a surrounding Slurm task must not choose the devices"
    )
    assert not jax.config.jax_enable_preemption_service  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (("10.0.0.1:1234", "2", ""), r"missing process index \(VIT_JAX_PROCESS_ID\)"),
        (("", "", "1"), "missing coordinator .* and number of processes"),
        (("10.0.0.1:1234", "two", "0"), "VIT_JAX_NUM_PROCESSES is 'two'"),
        (("10.0.0.1:1234", "0", "0"), "number of processes is 0"),
        (("10.0.0.1:1234", "2", "2"), "process index is 2: .* from 0 to 1"),
        (("10.0.0.1:1234", "2", "-1"), "process index is -1"),
        (("10.0.0.1", "2", "0"), "'10.0.0.1': give HOST:PORT"),
        (("10.0.0.1:port", "2", "0"), "'10.0.0.1:port': give HOST:PORT"),
        (("10.0.0.1:0", "2", "0"), "'10.0.0.1:0': give HOST:PORT"),
        (("10.0.0.1:65536", "2", "0"), "'10.0.0.1:65536': give HOST:PORT"),
        ((":1234", "2", "0"), "':1234': give HOST:PORT"),
    ],
)
def test_partial_or_contradicting_settings_are_refused_in_one_line(
    joined: list, monkeypatch: pytest.MonkeyPatch, settings: tuple[str, str, str], message: str
) -> None:
    names = ("VIT_JAX_COORDINATOR", "VIT_JAX_NUM_PROCESSES", "VIT_JAX_PROCESS_ID")
    set_environment(monkeypatch, **dict(zip(names, settings, strict=True)))
    with pytest.raises(ValueError, match=message) as error:
        multihost.initialize()
    assert "\n" not in str(error.value)
    assert joined == []


STEP = {
    "SLURM_JOB_ID": "7",
    "SLURM_STEP_NODELIST": "n[1-2]",
    "SLURM_PROCID": "0",
    "SLURM_LOCALID": "0",
    "SLURM_NTASKS": "8",
    "SLURM_STEP_NUM_NODES": "2",
}


@pytest.mark.parametrize(
    ("settings", "devices"),
    [
        ({"CUDA_VISIBLE_DEVICES": "0,1,2,3"}, None),  # JAX gives task i the GPU i
        ({"CUDA_VISIBLE_DEVICES": "3"}, [0]),  # Slurm has bound one GPU to the task
        ({"CUDA_VISIBLE_DEVICES": "0,1,2,3", "SLURM_NTASKS": "2"}, [0, 1, 2, 3]),
        ({}, None),
    ],
)
def test_a_slurm_task_takes_its_share_of_the_gpus(
    joined: list, monkeypatch: pytest.MonkeyPatch, settings: dict, devices: list[int] | None
) -> None:
    set_environment(monkeypatch, **(STEP | settings))
    multihost.initialize()
    expected = {"local_device_ids": devices, "cluster_detection_method": "slurm"}
    assert joined == [((), expected)]


def test_a_slurm_step_of_one_task_is_alone(joined: list, monkeypatch: pytest.MonkeyPatch) -> None:
    set_environment(monkeypatch, **(STEP | {"SLURM_NTASKS": "1"}))
    multihost.initialize()
    assert joined == []


def test_several_processes_ask_each_other_every_few_steps_and_wait_for_images(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One process alone looks for a signal after every step, and waits for no image then."""
    asked, waits = [], []
    told = lambda *, for_seconds=0.0: waits.append(for_seconds) or True  # noqa: E731
    monkeypatch.setattr(stopping, "requested", told)
    monkeypatch.setattr(multihost, "agree", lambda flag: asked.append(flag) or flag)
    assert [multihost.told_to_stop(step) for step in range(1, 21)] == [True] * 20
    assert multihost.give_up_reading(0.2)
    assert not asked and set(waits) == {0.0}

    monkeypatch.setattr(jax, "process_count", lambda: 2)
    answers = [multihost.told_to_stop(step) for step in range(1, 21)]
    assert [step for step, answer in enumerate(answers, 1) if answer] == [10, 20]
    assert asked == [True, True]
    waits.clear()
    assert multihost.give_up_reading(multihost.READ_LIMIT)
    assert waits == [multihost.READ_LIMIT]


def test_a_process_that_reads_slowly_after_a_signal_does_not_give_up(monkeypatch) -> None:
    """It waits a while for each batch, and must reach the step after which all of them stop."""
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    monkeypatch.setattr(stopping, "requested", lambda *, for_seconds: for_seconds <= 31)
    monkeypatch.setattr(batches, "POLL", 0.01)

    def slow(step: int) -> batches.Batch:
        time.sleep(0.1)
        return {"x": np.zeros(1)}

    def read() -> list[batches.Batch]:
        bad = BadImages(size=1, max_bad=0)
        given = {"pool": batches.Pool(1), "prefetch": 1, "bad": bad}
        ask = multihost.give_up_reading
        with batches.Batches(slow, start=0, stop=3, interrupted=ask, **given) as found:
            return list(found)

    assert len(read()) == 3
    monkeypatch.setattr(multihost, "READ_LIMIT", 0.03)
    with pytest.raises(NotReady):
        read()


@pytest.mark.parametrize("absent", ["SLURM_STEP_NODELIST", "SLURM_PROCID"])
def test_a_batch_script_without_srun_is_alone(
    joined: list, monkeypatch: pytest.MonkeyPatch, absent: str
) -> None:
    set_environment(monkeypatch, **{k: v for k, v in STEP.items() if k != absent})
    multihost.initialize()
    assert joined == []


@pytest.mark.parametrize(
    ("platforms", "settings", "slice_expected"),
    [
        ("tpu,cpu", {}, True),  # a Cloud TPU VM; JAX asks it for its neighbours
        ("tpu,cpu", {"TPU_WORKER_HOSTNAMES": "a,b"}, True),
        ("tpu,cpu", {"TPU_WORKER_HOSTNAMES": "localhost"}, False),
        ("tpu,cpu", {"TPU_WORKER_HOSTNAMES": "a", "MEGASCALE_NUM_SLICES": "2"}, True),
        ("tpu", {"TPU_SKIP_MDS_QUERY": "1"}, False),  # told to use a TPU there is not
        ("cpu", {}, False),
        ("", {}, False),
    ],
)
def test_only_tpu_hosts_with_neighbours_join_a_slice(
    joined: list,
    monkeypatch: pytest.MonkeyPatch,
    platforms: str,
    settings: dict,
    slice_expected: bool,
) -> None:
    before = jax.config.jax_platforms  # type: ignore[attr-defined]
    set_environment(monkeypatch, **settings)
    try:
        jax.config.update("jax_platforms", platforms)
        multihost.initialize()
    finally:
        jax.config.update("jax_platforms", before)
    assert joined == ([((), {})] if slice_expected else [])


@pytest.mark.parametrize("index", [0, 1])
def test_a_process_that_waits_for_others_in_vain_says_so_in_one_line(index: int) -> None:
    port = local._free_port()
    program = "from vit_jax.parallel import multihost as m; m.JOIN_LIMIT = 1; m.initialize()"
    settings = local._environment({}, index, 2, port, 1)
    ended = cli.process(program=(*cli.PYTHON, "-c", program), settings=settings)
    assert ended.returncode == 1
    (line,) = [line for line in ended.stderr.splitlines() if line.startswith("vit_jax: ")]
    assert f"of 2 to 127.0.0.1:{port} did not all join within 1 s" in line
    assert "Check failure stack trace" not in ended.stderr


TWO = """
import os, signal
seen = []
signal.signal(signal.SIGTERM, lambda *_: seen.append(1))
from vit_jax.parallel import multihost
multihost.initialize()
multihost.initialize()
import jax, jax.numpy as jnp, numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec
os.kill(os.getpid(), signal.SIGTERM)
mesh = jax.make_mesh((4,), ("data",), axis_types=(AxisType.Auto,))
mine = np.arange(2.0) + 2 * jax.process_index()
x = jax.make_array_from_process_local_data(NamedSharding(mesh, PartitionSpec("data")), mine)
total = float(jax.jit(jnp.sum)(x))
any_true = multihost.agree(jax.process_index() == 1), multihost.agree(False)
multihost.agree(False)
acted = []
for _ in range(2):
    multihost.primary_first("good", lambda: acted.append(1))
def refuse():
    raise ValueError("wrong")
try:
    multihost.primary_first("bad", refuse)
except ValueError as error:
    acted.append(str(error))
print("result", jax.process_count(), total, *any_true, multihost.is_primary(), len(seen), acted)
"""


def test_two_processes_reduce_agree_and_keep_the_signal_handler() -> None:
    outputs = [ended.stdout for ended in cli.two_processes(TWO, devices=2)]
    lines = ["result" + output.partition("result")[2].splitlines()[0] for output in outputs]
    assert lines == [
        "result 2 6.0 True False True 1 [1, 1, 'wrong']",
        "result 2 6.0 True False False 1 ['wrong']",
    ]
