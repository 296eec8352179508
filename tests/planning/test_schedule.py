"""What is read from the text of a compiled program. The program is small, so figures are exact."""

import dataclasses
import pathlib

import pytest

from vit_jax.planning import collectives, hlo, schedule, topologies
from vit_jax.planning.collectives import Network
from vit_jax.planning.costs import REACHED
from vit_jax.planning.schedule import Traffic

V5E = topologies.parse("v5e-8").chip
NETWORK = Network(V5E, {"data": 2, "fsdp": 4, "tensor": 1})
TEXT = pathlib.Path(__file__).with_name("step.hlo").read_text()
TRIPS = 6  # 1, 3, ..., 11 are below 13


@pytest.fixture(scope="module")
def timeline() -> schedule.Timeline:
    return schedule.walk(hlo.parse(TEXT), NETWORK)


def test_a_loop_counts_from_its_first_value_to_its_bound_in_its_steps() -> None:
    program = hlo.parse(TEXT)
    main = program.computations[program.entry]
    assert hlo.trips(program, main, main["while.1"]) == TRIPS


def test_flops_of_a_loop_count_every_time_it_runs(timeline) -> None:
    assert timeline.flops == TRIPS * 2 * 4 * 8 * 16


def test_a_slice_counts_as_a_slice_and_memory_on_the_chip_does_not_count(timeline) -> None:
    matmul = 2 * (4 * 8 + 4 * 16)  # the kernel is on the chip
    counter = 3 * 4  # read, added to, and written
    assert timeline.bytes == TRIPS * (matmul + 4 * 100 + 4 + counter)


def test_cycles_become_seconds(timeline) -> None:
    assert timeline.matmul == pytest.approx(TRIPS * 3000 / V5E.clock)
    assert timeline.other == pytest.approx(TRIPS * 150 / V5E.clock, rel=1e-2)
    parts = timeline.matmul + timeline.other + timeline.exposed + timeline.waiting
    assert timeline.seconds == pytest.approx(parts)


def test_collectives_are_known_by_kind_axes_bytes_and_count(timeline) -> None:
    found = {traffic: (total.count, total.bytes) for traffic, total in timeline.collectives.items()}
    assert found == {
        Traffic("all-gather", "fsdp", 4, "ICI", True): (1, 4 * 24 * 100),
        Traffic("all-reduce", "data", 2, "ICI", False): (TRIPS, TRIPS * 2 * 8 * 16),
    }


def test_only_a_collective_that_the_core_waits_for_takes_time(timeline) -> None:
    each = NETWORK.seconds("all-reduce", 2 * 8 * 16, devices=2)
    assert timeline.exposed == pytest.approx(TRIPS * each)  # the gather ends during the loop


def test_equal_instructions_of_unrolled_blocks_are_one_of_the_dearest(timeline) -> None:
    first, second = timeline.items[:2]
    unrolled = dataclasses.replace(timeline, items=[second, first, first])
    dearest, other = unrolled.dearest(2)
    assert (dearest.instruction, dearest.times) == (first.instruction, 2 * first.times)
    assert dearest.seconds == 2 * first.seconds and other == second
    assert unrolled.dearest(1) == [dearest]


@pytest.mark.parametrize(
    ("attributes", "members"),
    [
        ("replica_groups={{0,4},{1,5}}", [0, 4]),
        ("replica_groups=[4,2]<=[2,4]T(1,0)", [0, 4]),
        ("replica_groups=[2,4]<=[8]", [0, 1, 2, 3]),
        ("replica_groups=mesh['a'=2,'b'=4] {'b'}", [0, 1, 2, 3]),
        ("replica_groups=mesh['a'=2,'b'=4] {'a','b':(1)2}", [0, 2, 4, 6]),
        ("replica_groups={}", list(range(8))),
    ],
)
def test_groups_are_read_in_every_notation(attributes, members) -> None:
    one = hlo.Instruction("x", "f32[]", "all-reduce", (), "", attributes, False)
    assert collectives.first_group(one, 8) == members


def test_a_group_of_several_slices_uses_the_network_between_them() -> None:
    network = Network(V5E, {"data": 2, "fsdp": 4, "tensor": 1}, [0] * 4 + [1] * 4)
    found = schedule.walk(hlo.parse(TEXT), network).collectives
    assert {(traffic.axes, traffic.link) for traffic in found} == {("fsdp", "ICI"), ("data", "DCN")}


def test_a_sum_between_more_slices_takes_longer() -> None:
    chip = topologies.parse("2xv5e-8").chip
    network = Network(chip, {"data": 8}, [0, 0, 1, 1, 2, 2, 3, 3])
    size = chip.between  # the bytes of one second
    for kind, two, four in (
        ("all-reduce", 1.0, 1.5), ("all-gather", 0.5, 0.75), ("one-to-one", 1.0, 1.0)
    ):  # fmt: skip
        assert network.between_slices(kind, size, slices=2) == pytest.approx(two, abs=1e-3)
        assert network.between_slices(kind, size, slices=4) == pytest.approx(four, abs=1e-3)
    assert network.across("all-reduce", size, [0, 2, 4, 6]) == pytest.approx(1.5, abs=1e-3)


def test_a_collective_passes_the_ring_as_often_as_its_kind_needs() -> None:
    size = V5E.ring  # the bytes of one second
    for kind, seconds in (
        ("all-reduce", 1.5), ("all-gather", 0.75), ("reduce-scatter", 0.75),
        ("all-to-all", 0.25 * 0.75), ("collective-permute", 2.0),
    ):  # fmt: skip
        assert NETWORK.seconds(kind, size, devices=4) == pytest.approx(seconds, abs=1e-4)


LOOPS = """
%condition (c: (s32[], f32[4,8], f32[8,16])) -> pred[] {
  %c = (s32[], f32[4,8]{1,0}, f32[8,16]{1,0}) parameter(0)
  %i = s32[] get-tuple-element(%c), index=0
  %ten = s32[] constant(10)
  ROOT %less = pred[] compare(%i, %ten), direction=LT
}

%inner (b: (s32[], f32[4,8], f32[8,16])) -> (s32[], f32[4,8], f32[8,16]) {
  %b = (s32[], f32[4,8]{1,0}, f32[8,16]{1,0}) parameter(0)
  %j = s32[] get-tuple-element(%b), index=0
  %x = f32[4,8]{1,0} get-tuple-element(%b), index=1
  %w = f32[8,16]{1,0} get-tuple-element(%b), index=2
  %dot = f32[4,16]{1,0} dot(%x, %w), lhs_contracting_dims={1}, rhs_contracting_dims={0}
  %four = s32[] constant(4)
  %next = s32[] add(%j, %four)
  ROOT %t = (s32[], f32[4,8]{1,0}, f32[8,16]{1,0}) tuple(%next, %x, %w)
}

%outer (o: (s32[], f32[4,8], f32[8,16])) -> (s32[], f32[4,8], f32[8,16]) {
  %o = (s32[], f32[4,8]{1,0}, f32[8,16]{1,0}) parameter(0)
  %v = f32[8,16]{1,0} get-tuple-element(%o), index=2
  %start = (f32[8,16]{1,0}, f32[8,16]{1,0:S(1)}, u32[]) copy-start(%v)
  %done = f32[8,16]{1,0:S(1)} copy-done(%start)
  ROOT %steps = (s32[], f32[4,8]{1,0}, f32[8,16]{1,0}) while(%o), condition=%condition, body=%inner
}

ENTRY %main (p: f32[4,8], q: f32[8,16]) -> (s32[], f32[4,8], f32[8,16]) {
  %p = f32[4,8]{1,0} parameter(0)
  %q = f32[8,16]{1,0} parameter(1)
  %zero = s32[] constant(0)
  %all = (s32[], f32[4,8]{1,0}, f32[8,16]{1,0}) tuple(%zero, %p, %q)
  ROOT %loop = (s32[], f32[4,8]{1,0}, f32[8,16]{1,0}) while(%all), condition=%condition, \
body=%outer, backend_config={"known_trip_count":{"n":"5"}}
}
"""


def test_what_is_in_two_loops_counts_as_often_as_both_run() -> None:
    """The outer one 5 times, the inner one for 0, 4 and 8."""
    found = schedule.walk(hlo.parse(LOOPS), NETWORK)
    assert found.flops == 5 * 3 * 2 * 4 * 8 * 16
    each = 4 * 8 * 16 / (V5E.bandwidth * REACHED) + 0.3e-6
    assert found.waiting == pytest.approx(5 * each)


PARTS = """
ENTRY %main (a: f32[6,100], u: f32[1,100], q: s4[64], g: bf16[8,40]) -> bf16[2,40] {
  %a = f32[6,100]{1,0} parameter(0)
  %u = f32[1,100]{1,0} parameter(1)
  %q = s4[64]{0} parameter(2)
  %g = bf16[8,40]{1,0} parameter(3)
  %zero = s32[] constant(0)
  %changed = f32[6,100]{1,0} dynamic-update-slice(%a, %u, %zero, %zero)
  %copied = s4[64]{0} copy(%q)
  %kernel = f32[1,100]{1,0} custom-call(%u), custom_call_target="tpu_custom_call", \
backend_config={"cost_estimate":{"flops":"4000000","transcendentals":"0","bytes_accessed":"10"}}
  ROOT %mine = bf16[2,40]{1,0} reduce-scatter(%g), channel_id=1, replica_groups=[2,4]<=[8], \
dimensions={0}, use_global_device_ids=true, to_apply=%sum
}
"""


def test_each_kind_of_operation_has_its_bytes() -> None:
    found = schedule.walk(hlo.parse(PARTS), NETWORK)
    update, four_bits, kernel = 2 * 4 * 100, 2 * 32, 10  # read and written
    assert found.bytes == update + four_bits + kernel
    ((traffic, total),) = found.collectives.items()
    assert (traffic.kind, total.bytes) == ("reduce-scatter", 2 * 8 * 40)  # of the operand


def test_a_kernel_is_as_slow_as_kernels_are() -> None:
    """As its author estimates it, at 40% of the peak."""
    found = schedule.walk(hlo.parse(PARTS), NETWORK)
    (kernel,) = [item for item in found.items if item.instruction.op == "custom-call"]
    assert kernel.seconds == pytest.approx(4_000_000 / (0.4 * V5E.peak))


@pytest.mark.parametrize("xors", [19, 20])
def test_a_product_draws_random_numbers_if_it_has_the_rounds_of_threefry(xors) -> None:
    rounds = "".join(f"  %xor.{i} = u32[4,8]{{1,0}} xor(%bits, %bits)\n" for i in range(xors))
    text = TEXT.replace("  ROOT %convolution.1", f"{rounds}  ROOT %convolution.1")
    found = schedule.walk(hlo.parse(text), NETWORK)
    assert found.drawing == (found.matmul if xors == 20 else 0)


def test_text_without_an_entry_is_refused() -> None:
    with pytest.raises(ValueError, match="no ENTRY"):
        hlo.parse("not a program")


GPU = """
ENTRY %main (a: bf16[64,32], b: bf16[32,16], c: bf16[2,8,8,3], d: bf16[4,4,4,3]) -> bf16[64,16] {
  %a = bf16[64,32]{1,0} parameter(0)
  %b = bf16[32,16]{1,0} parameter(1)
  %c = bf16[2,8,8,3]{3,2,1,0} parameter(2)
  %d = bf16[4,4,4,3]{3,2,1,0} parameter(3)
  %conv = (bf16[2,2,2,4]{3,2,1,0}, u8[64]{0}) custom-call(%c, %d), window={size=4x4 stride=4x4}, \
dim_labels=b01f_o01i->b01f, custom_call_target="__cudnn$convForward"
  %gemm = (bf16[64,16]{1,0}, s8[1024]{0}) custom-call(%a, %b), \
custom_call_target="__cublas$lt$matmul", backend_config={"gemm_backend_config":\
{"dot_dimension_numbers":{"lhs_contracting_dimensions":["1"],"rhs_contracting_dimensions":["0"]}}}
  ROOT %out = bf16[64,16]{1,0} get-tuple-element(%gemm), index=0
}
"""


def test_calls_of_libraries_on_gpus_have_their_flops_and_bytes() -> None:
    chip = topologies.parse("h100-1").chip
    found = schedule.walk(hlo.parse(GPU), Network(chip, {"data": 1}))
    gemm, convolution = 2 * 64 * 32 * 16, 2 * (2 * 2 * 2 * 4) * (4 * 4 * 3)
    assert found.flops == gemm + convolution
    numbers = (64 * 32 + 32 * 16 + 64 * 16) + (2 * 8 * 8 * 3 + 4 * 4 * 4 * 3 + 2 * 2 * 2 * 4)
    assert found.bytes == 2 * numbers  # without the room that the libraries work in
    assert found.seconds >= found.bytes / chip.bandwidth


def test_gpus_of_several_nodes_share_their_network_cards() -> None:
    chip = topologies.parse("2xh100-8").chip
    network = Network(chip, {"data": 16}, [0] * 8 + [1] * 8)
    all_of_them = network.across("all-reduce", 1e9, range(16))
    one_per_node = network.across("all-reduce", 1e9, [0, 8])
    assert network.seconds("all-reduce", 1e9, devices=8) < all_of_them < one_per_node
