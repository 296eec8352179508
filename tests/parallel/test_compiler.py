"""The options of the compiler for a step: those of the platform, and the user's."""

import pytest

from tests.parallel import pods
from vit_jax.config import MeshConfig
from vit_jax.parallel import compiler
from vit_jax.parallel.mesh import make_mesh

WINDOWED = "xla_jf_spmd_threshold_for_windowed_einsum_mib"
SCOPED = "xla_tpu_scoped_vmem_limit_kib"
GATHERED = {"xla_tpu_prefer_async_allgather_to_allreduce": "true"}


def test_a_tpu_mesh_that_splits_kernels_does_not_pass_them_around() -> None:
    chips = pods.pod("TPU v4", (2, 2, 2))
    assert compiler.options(make_mesh(MeshConfig(), chips)) == {}
    cases: list[tuple[dict[str, int], dict[str, str]]] = [
        ({"fsdp": 8}, GATHERED),
        ({"tensor": 2}, {}),
    ]
    for sizes, also in cases:
        mesh = make_mesh(MeshConfig(**sizes), chips)
        assert compiler.options(mesh) == {WINDOWED: "1000000", **also}
        assert compiler.options(mesh, [f"{WINDOWED}=0"]) == {WINDOWED: "0", **also}
    on_cpu = compiler.options(make_mesh(MeshConfig(fsdp=8)))
    assert on_cpu == {"xla_backend_optimization_level": "1"}, "no option of another platform"
    assert compiler.shown(on_cpu) == ""
    compiler.check_known(on_cpu)
    assert compiler.shown(compiler.options(mesh)) == f"note: the compiler gets {WINDOWED}=1000000"


@pytest.mark.parametrize(
    ("kind", "shape", "kib"),
    [("TPU v5 lite", (2, 4, 1), "24576"), ("TPU v5", (2, 2, 2), "32768")],
)
def test_operations_of_a_v5e_and_a_v5p_may_use_more_fast_memory(kind, shape, kib) -> None:
    mesh = make_mesh(MeshConfig(), pods.pod(kind, shape))
    assert compiler.options(mesh) == {SCOPED: kib}
    assert compiler.options(mesh, unroll=12) == {SCOPED: "32768"}
    assert compiler.options(mesh, [f"{SCOPED}=16384"]) == {SCOPED: "16384"}


def test_a_v5p_gathers_kernels_beside_its_products() -> None:
    beside = {
        "xla_enable_async_all_gather",
        "xla_tpu_enable_async_collective_fusion",
        "xla_tpu_enable_async_collective_fusion_fuse_all_gather",
    }
    for fsdp, also in ((1, set()), (8, {WINDOWED, *GATHERED, *beside})):
        mesh = make_mesh(MeshConfig(fsdp=fsdp), pods.pod("TPU v5", (2, 2, 2)))
        assert set(compiler.options(mesh)) == {SCOPED, *also}


def test_a_bool_is_spelled_as_its_platform_does() -> None:
    chips = pods.pod("TPU v4", (2, 2, 2))
    for text in ("true", "True", "false"):
        given = [f"xla_some_flag={text}"]
        assert compiler.options(make_mesh(MeshConfig(), chips), given) == {
            "xla_some_flag": text.lower()
        }
        on_cpu = compiler.options(make_mesh(MeshConfig()), given)
        assert on_cpu["xla_some_flag"] == text.capitalize()


@pytest.mark.parametrize("option", ["xla_x", "x=1", "xla_x=", "xla_x=1 xla_y=2"])
def test_an_option_without_name_and_value_is_refused(option) -> None:
    with pytest.raises(ValueError, match="compiler_options has .*: give NAME=VALUE"):
        compiler.check([option])


def test_an_option_that_the_compiler_does_not_know_is_refused() -> None:
    compiler.check_known({"xla_cpu_enable_fast_min_max": "True"})
    for options, reason in (
        ({"xla_no_such_thing": "1"}, "No such compile option: 'xla_no_such_thing'"),
        ({"xla_cpu_enable_fast_min_max": "maybe"}, "'maybe' is not a valid bool value"),
    ):
        with pytest.raises(ValueError, match=f"config.compiler_options: .*{reason}"):
            compiler.check_known(options)
