"""What a step moves between TPUs, read from programs of the real TPU compiler.

The models have two layers, and the compiler optimises little: that is enough for the structure. The
tests are skipped where the compiler is not installed.
"""

import collections
import dataclasses
import json
import math
import os
import re
import subprocess
import sys
from collections.abc import Mapping

import pytest

from tests import runs
from tests.parallel import pods
from vit_jax.config import Config, default_config, resolve
from vit_jax.data.record import DataFacts
from vit_jax.planning import collectives, compiling, hlo, job, schedule, topologies

# Sizes and the topology of each mesh.
MESHES = {
    "data": ((8, 1, 1), "v5e:2x4"),
    "fsdp": ((1, 8, 1), "v5e:2x4"),
    "data and fsdp": ((2, 4, 1), "v5e:2x4"),
    "tensor": ((4, 1, 2), "v5e:2x4"),
    "two slices": ((2, 4, 1), "2xv5e:2x2"),
}
LAYERS, WIDTH, MLP, CLASSES = 2, 256, 1280, 1000
BATCH, SIDE = 64, 64
KERNELS = (3 * WIDTH * WIDTH, WIDTH * WIDTH, WIDTH * MLP, MLP * WIDTH)  # of a layer
HEAD, EMBEDDING = WIDTH * CLASSES, 16 * 16 * 3 * WIDTH
LIMIT = 300.0  # seconds for a compilation on a busy machine; it takes 5 on an idle one


def needed() -> str:
    """Why the tests cannot run, or ""."""
    try:
        compiling.check_installed()
    except ValueError as error:
        return str(error)
    return ""


pytestmark = pytest.mark.skipif(bool(needed()), reason=needed())


@dataclasses.dataclass(frozen=True, kw_only=True)
class Step:
    """A compiled training step."""

    text: str
    timeline: schedule.Timeline
    result: job.Result

    def moved(self, *, smallest: int = 4096) -> collections.Counter[tuple[str, str, int]]:
        """Kind, dtype and elements of every array that a collective moves, in all computations."""
        found: collections.Counter[tuple[str, str, int]] = collections.Counter()
        for name, computation in hlo.parse(self.text).computations.items():
            for one in computation.values():
                kind = collectives.kind_of(one.op)
                if not kind or one.op.endswith("-done"):
                    continue
                shapes = one.shape
                if "all-reduce-scatter" in name or kind == "reduce-scatter":
                    kind = "reduce-scatter"
                    shapes = " ".join(computation[n].shape for n in one.operands)
                for dtype, shape in hlo.arrays(shapes):
                    size = math.prod(shape)
                    if size >= smallest:
                        found[kind, dtype, size] += 1
        return found

    def sizes(self, kind: str) -> set[int]:
        return {size for of_kind, _, size in self.moved() if of_kind == kind}

    def bytes(self, kind: str, axes: str) -> float:
        """The bytes of a kind of collective along mesh axes, in one step."""
        sums = self.timeline.collectives.items()
        return sum(total.bytes for t, total in sums if (t.kind, t.axes) == (kind, axes))


def recipe(mesh: tuple[int, int, int]) -> Config:
    config = default_config()
    config.model.name, config.model.dtype, config.model.pool = "Ti/16", "bfloat16", "gap"
    config.model.width, config.model.num_heads, config.model.mlp_dim = WIDTH, 4, MLP
    config.model.depth, config.model.remat = LAYERS, "none"
    config.image_size, config.batch_size = (SIDE, SIDE), BATCH
    config.mesh.data, config.mesh.fsdp, config.mesh.tensor = mesh
    return resolve(config)


@pytest.fixture(scope="module")
def steps() -> Mapping[str, Step]:
    found = {}
    with pytest.MonkeyPatch.context() as patch:
        # Results are kept: an unchanged program is not compiled again.
        patch.setenv("XDG_CACHE_HOME", str(runs.ROOT / ".cache"))
        compiler = compiling.Compiler(limit=LIMIT)
        for name, (mesh, topology) in MESHES.items():
            where = topologies.parse(topology)
            one = job.Job(
                config=recipe(mesh),
                facts=DataFacts(train_size=10_000, num_classes=CLASSES),
                topology=where,
                options={"optimization_level": 19},  # a number: jax 0.12 takes no text
            )
            result = compiler.one(one)
            assert result.step is not None
            network = collectives.Network(where.chip, result.step.mesh, result.step.slice_of)
            text = compiler.text(result)
            timeline = schedule.walk(hlo.parse(text), network)
            found[name] = Step(text=text, timeline=timeline, result=result)
    return found


@pytest.mark.parametrize("mesh", MESHES)
def test_a_program_computes_what_the_model_asks_for_and_no_more(steps, mesh) -> None:
    step, sizes = steps[mesh], MESHES[mesh][0]
    # The devices of `tensor` all embed the patches: forward, and for the kernel's gradient.
    tokens = BATCH * (SIDE // 16) ** 2
    embedding = 2 * 2 * tokens * EMBEDDING
    # Means and variances of the norms are products with a column of ones, which are not traced.
    sums = 2 * (2 * LAYERS + 1) * 2 * tokens * WIDTH
    expected = step.result.step.traced_flops + (sizes[2] - 1) * embedding + sizes[2] * sums
    assert step.timeline.flops * math.prod(sizes) == expected


@pytest.mark.parametrize("mesh", MESHES)
def test_no_kernel_travels_from_device_to_device(steps, mesh) -> None:
    permutes = {size for kind, _, size in steps[mesh].moved() if kind == "collective-permute"}
    # Mixup needs the images of the next device; nothing else is passed on.
    assert not permutes & {size // parts for size in (*KERNELS, HEAD) for parts in (1, 2, 4, 8)}


@pytest.mark.parametrize("mesh", MESHES)
def test_every_array_of_the_state_is_donated(steps, mesh) -> None:
    header = steps[mesh].text.splitlines()[0]
    aliases = re.findall(r"\{(\d+)\}: \((\d+), \{\}, (?:may|must)-alias\)", header)
    outputs = re.search(r"->\((.*)\)\}", header)
    assert outputs is not None
    state = len(hlo.arrays(outputs.group(1))) - 4  # the metrics of a step are not in the state
    assert len(aliases) == state


def test_data_parallelism_reduces_gradients_once_in_bfloat16(steps) -> None:
    step = steps["data"]
    assert {kind for kind, _, _ in step.moved()} == {"all-reduce"}
    parameters = step.result.step.parameters
    # The head computes in float32.
    expected = 2 * (parameters - HEAD) + 4 * HEAD
    assert step.bytes("all-reduce", "data") == pytest.approx(expected, rel=0.05)


@pytest.mark.parametrize("mesh", ["fsdp", "data and fsdp", "two slices"])
def test_fsdp_gathers_kernels_in_bfloat16_and_scatters_their_gradients(steps, mesh) -> None:
    step = steps[mesh]
    moved = step.moved()
    for size in set(KERNELS):
        assert moved["all-gather", "bf16", size], f"{size} elements are gathered in bfloat16"
        assert not moved["all-gather", "f32", size]
    assert not step.sizes("all-reduce") & {*KERNELS, HEAD}, "no gathered kernel is reduced whole"
    scattered = step.sizes("reduce-scatter")
    for size in {HEAD, *KERNELS}:  # which the compiler may pad
        assert any(size <= other < 1.05 * size for other in scattered), f"the gradient of {size}"


def test_small_arrays_are_not_gathered(steps) -> None:
    assert min(steps["fsdp"].sizes("all-gather")) >= 65_536
    layers = LAYERS * 2 * len(KERNELS)
    count = sum(
        total.count
        for traffic, total in steps["fsdp"].timeline.collectives.items()
        if traffic.kind == "all-gather"
    )
    assert count <= layers + 4, "the kernels of the blocks, forward and backward, and a few others"


def test_between_slices_gradients_cross_once_and_as_parts(steps) -> None:
    crossing = {
        t: total for t, total in steps["two slices"].timeline.collectives.items() if t.link == "DCN"
    }
    assert crossing
    parts = LAYERS * sum(KERNELS) / 4  # of the fsdp axis
    sent = sum(total.bytes for total in crossing.values())
    assert sent <= 2 * 2 * (parts + HEAD / 4 + EMBEDDING / 4) * 1.2


def test_heads_and_columns_are_split_over_tensor(steps) -> None:
    step = steps["tensor"]
    assert not step.sizes("all-gather") & set(KERNELS)
    # Two sums of the tokens forward and two backward in each layer.
    tokens = BATCH // 4 * (SIDE // 16) ** 2 * WIDTH
    assert step.bytes("all-reduce", "tensor") == pytest.approx(LAYERS * 4 * 2 * tokens, rel=0.3)


COORDINATES = """
import json, sys
from jax.experimental import topologies
found = {}
for name in sys.argv[1:]:
    devices = topologies.get_topology_desc(platform="tpu", topology_name=name).devices
    found[name] = [(d.id, d.process_index, list(d.coords), d.device_kind) for d in devices]
print(json.dumps(found))
"""


def test_the_recorded_slices_are_those_of_the_compiler() -> None:
    """The tests of meshes use these coordinates, also where there is no TPU compiler."""
    names = {"v5e:8x8": (8, 8, 1), "v5e:16x16": (16, 16, 1), "v5p:8x8x4": (8, 8, 4)}
    ended = subprocess.run(
        [sys.executable, "-c", COORDINATES, *names],
        env=os.environ | compiling._SETTINGS,
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=True,
    )
    found = json.loads(ended.stdout.splitlines()[-1])
    for name, size in names.items():
        kind = found[name][0][3]
        recorded = [
            [chip.id, chip.process_index, list(chip.coords), kind] for chip in pods.pod(kind, size)
        ]
        assert found[name] == recorded, name
