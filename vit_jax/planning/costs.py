"""What an instruction of a compiled program costs: matrix FLOPs, bytes of the HBM, and seconds."""

import dataclasses
import functools
import math
import re
from collections import defaultdict

from vit_jax.parallel.chips import Chip
from vit_jax.planning import hlo
from vit_jax.planning.hlo import Computation, Instruction, Program

_FREE = frozenset(
    ("get-tuple-element", "tuple", "parameter", "bitcast", "constant", "after-all")
    + ("partition-id", "replica-id", "optimization-barrier")
)
_SLICES = ("dynamic-slice", "slice", "gather")
_UPDATE = "dynamic-update-slice"
REACHED = 0.9  # share of the bandwidth of the HBM that a plain pass over memory reaches
_LIBRARY = 'custom_call_target="__cu'  # calls of cuBLAS and cuDNN
_KERNEL = 0.4  # share of the peak that a kernel without an estimate is assumed to reach


@dataclasses.dataclass(frozen=True)
class Cost:
    """Of one execution of an instruction on one device."""

    seconds: float = 0.0
    flops: float = 0.0
    bytes: float = 0.0


class Costs:
    """The costs of the instructions of a program on a chip."""

    def __init__(self, program: Program, chip: Chip) -> None:
        self._program, self._chip = program, chip
        self._flops_of = functools.cache(self._computation_flops)

    def of(self, one: Instruction, where: Computation) -> Cost:
        """The cost of an instruction of the computation `where`.

        The seconds are the compiler's cycles; without an estimate, the time for the FLOPs or for
        the bytes, whichever is longer.
        """
        if one.op in _FREE:
            return Cost()
        if one.op == "custom-call" and "tpu_custom_call" in one.attributes:
            return self._kernel(one, where)
        if one.op == "custom-call" and _LIBRARY in one.attributes:
            flops, moved = library_flops(one, where), _library_bytes(one, where)
            return Cost(self._roofline(flops, moved), flops, moved)
        if one.op == "fusion":
            inner = one.reference("calls")
            flops, moved = self._flops_of(inner), self._fusion_bytes(one, where)
        else:
            matmul = one.op in ("convolution", "dot")
            flops = matmul_flops(one, where) if matmul else 0.0
            moved = 0.0 if one.op == "custom-call" else _all_bytes(one, where)
        if one.cycles is not None and one.cycles:
            return Cost(one.cycles / self._chip.clock, flops, moved)
        return Cost(self._roofline(flops, moved), flops, moved)

    def _roofline(self, flops: float, moved: float) -> float:
        chip = self._chip
        return max(flops / chip.peak, moved / (chip.bandwidth * REACHED))

    def _kernel(self, one: Instruction, where: Computation) -> Cost:
        """The cost of a Pallas kernel, as its author estimates it."""
        match = re.search(
            r'"cost_estimate":\{"flops":"(\d+)","transcendentals":"\d+","bytes_accessed":"(\d+)"',
            one.attributes,
        )
        flops = float(match.group(1)) if match else 0.0
        moved = float(match.group(2)) if match else _all_bytes(one, where)
        return Cost(self._roofline(flops / _KERNEL, moved), flops, moved)

    def _computation_flops(self, name: str) -> float:
        where, total = self._program.computations[name], 0.0
        for one in where.values():
            if one.op in ("convolution", "dot"):
                total += matmul_flops(one, where)
            elif one.op == "fusion":
                total += self._flops_of(one.reference("calls"))
        return total

    def _fusion_bytes(self, fusion: Instruction, where: Computation) -> float:
        """The HBM traffic of a fusion; of an array that it slices, only the slice counts."""
        inner = self._program.computations[fusion.reference("calls")]
        users = _users(inner)
        parameters = {int(o.arguments): o for o in inner.values() if o.op == "parameter"}
        total = 0.0
        for number, operand in enumerate(fusion.operands):
            if operand not in where:
                continue
            whole = hlo.hbm_bytes(where[operand].shape)
            if whole and number in parameters:
                whole = self._read(parameters[number], inner, users, whole)
            total += whole
        return total + self._written(fusion, inner)

    def _read(
        self,
        array: Instruction,
        where: Computation,
        users: dict[str, list[Instruction]],
        whole: float,
        depth: int = 0,
    ) -> float:
        """The bytes that a fusion reads of an array of `whole` bytes."""
        total = 0.0
        for user in users[array.name]:
            if user.op in _SLICES:
                total += hlo.array_bytes(user.shape)
            elif user.op == _UPDATE and user.operands[0] == array.name:
                continue  # it is changed in place
            elif user.op == "bitcast" and depth < 3:
                total += self._read(user, where, users, whole, depth + 1)
            elif user.op == "fusion":
                part = self._read_inside(user, array.name)
                if part is None:
                    return whole
                total += part
            else:
                return whole
        return min(whole, total)

    def _read_inside(self, fusion: Instruction, name: str) -> float | None:
        """The bytes that a nested fusion reads of an operand; None: all of it."""
        inner = self._program.computations[fusion.reference("calls")]
        number = str(fusion.operands.index(name))
        changed = [o.name for o in inner.values() if (o.op, o.arguments) == ("parameter", number)]
        users = [user for name in changed for user in _users(inner)[name]]
        if users and all(user.op in ("dynamic-slice", "slice") for user in users):
            return sum(hlo.array_bytes(user.shape) for user in users)
        in_place = (user.op == _UPDATE and user.operands[0] in changed for user in users)
        return 0.0 if users and all(in_place) else None

    def _written(self, fusion: Instruction, inner: Computation) -> float:
        root = next(one for one in inner.values() if one.root)
        if root.op != "tuple":
            total = hlo.hbm_bytes(fusion.shape)
            return (self._root_bytes(root, inner) or total) if total else 0.0
        total = 0.0
        results = [inner[name] for name in root.operands]
        for text, result in zip(hlo.array_texts(fusion.shape), results, strict=False):
            if written := hlo.hbm_bytes(text):
                in_hbm = hlo.hbm_bytes(result.shape)
                total += self._root_bytes(result, inner) if in_hbm else written
        return total

    def _root_bytes(self, root: Instruction, where: Computation) -> float:
        """The bytes that a result writes; an update in place writes only the update."""
        whole = hlo.hbm_bytes(root.shape)
        if not whole:
            return 0.0
        if root.op == "bitcast" and root.operands[0] in where:
            source = where[root.operands[0]]
            return min(whole, _update_bytes(source, where) or whole)
        if root.op == "fusion":
            inner = self._program.computations[root.reference("calls")]
            last = next(one for one in inner.values() if one.root)
            return _update_bytes(last, inner) or whole
        return _update_bytes(root, where) or whole


def _update_bytes(one: Instruction, where: Computation) -> float:
    """The bytes of the update of a dynamic-update-slice, else 0."""
    return hlo.array_bytes(where[one.operands[1]].shape) if one.op == _UPDATE else 0.0


def _users(where: Computation) -> dict[str, list[Instruction]]:
    users: dict[str, list[Instruction]] = defaultdict(list)
    for one in where.values():
        for operand in one.operands:
            users[operand].append(one)
    return users


def _all_bytes(one: Instruction, where: Computation) -> float:
    if one.op == _UPDATE:
        return 2 * _update_bytes(one, where) if one.operands[1] in where else 0.0
    read = sum(hlo.hbm_bytes(where[name].shape) for name in one.operands if name in where)
    return hlo.hbm_bytes(one.shape) + read


def matmul_flops(one: Instruction, where: Computation) -> float:
    """The FLOPs of a dot or a convolution; a multiply-add counts as two.

    Products with the padding and the holes of a convolution are not counted.
    """
    first = where[one.operands[0]].shape
    if one.op == "dot":
        match = re.search(r"lhs_contracting_dims=\{([\d,]*)\}", one.attributes)
        axes = [int(axis) for axis in match.group(1).split(",") if axis] if match else []
        left, out = hlo.sizes(first), hlo.sizes(one.shape)
        return 2.0 * math.prod(out) * math.prod(left[axis] for axis in axes)
    return _convolution_flops(one.attributes, first, where[one.operands[1]].shape, one.shape)


def _convolution_flops(attributes: str, images: str, kernel: str, result: str) -> float:
    """The FLOPs of a convolution of the types `images` and `kernel` to the type `result`."""
    left, right, out = hlo.sizes(images), hlo.sizes(kernel), hlo.sizes(result)
    match = re.search(r"dim_labels=(\w+)_(\w+)->(\w+)", attributes)
    assert match is not None, attributes
    of_left, of_right, of_out = match.groups()
    window = _window(attributes)
    flops = 2.0 * out[of_out.index("b")] * out[of_out.index("f")] * right[of_right.index("i")]
    for axis, size in enumerate(window["size"]):
        flops *= _products(
            size,
            outputs=out[of_out.index(str(axis))],
            inputs=left[of_left.index(str(axis))],
            stride=window["stride"][axis],
            pad=window["pad"][axis],
            holes=window["lhs_dilate"][axis],
            kernel_holes=window["rhs_dilate"][axis],
        )
    return flops


def library_flops(one: Instruction, where: Computation) -> float:
    """The FLOPs of a call of cuBLAS or cuDNN; 0 for what is neither product nor convolution."""
    out = hlo.sizes(hlo.array_texts(one.shape)[0])
    if match := re.search(r'"lhs_contracting_dimensions":\[([^\]]*)\]', one.attributes):
        left = hlo.sizes(where[one.operands[0]].shape)
        axes = [int(axis) for axis in re.findall(r"\d+", match.group(1))]
        return 2.0 * math.prod(out) * math.prod(left[axis] for axis in axes)
    if "dim_labels=" not in one.attributes:
        return 0.0
    first, second = (where[name].shape for name in one.operands[:2])
    result = hlo.array_texts(one.shape)[0]
    if "convBackwardInput" in one.attributes:
        return _convolution_flops(one.attributes, result, second, first)
    if "convBackwardFilter" in one.attributes:
        return _convolution_flops(one.attributes, first, result, second)
    return _convolution_flops(one.attributes, first, second, result)


def _library_bytes(one: Instruction, where: Computation) -> float:
    """The operands and the result; the second array of the result is only room to work in."""
    read = sum(hlo.hbm_bytes(where[name].shape) for name in one.operands if name in where)
    return hlo.hbm_bytes(hlo.array_texts(one.shape)[0]) + read


def _window(attributes: str) -> dict[str, list[int]]:
    match = re.search(r"window=\{([^}]*)\}", attributes)
    given = dict(part.split("=") for part in match.group(1).split()) if match else {}
    size = [int(value) for value in given.get("size", "").split("x") if value]
    window = {"size": size, "pad": [0] * len(size)}
    for key in ("stride", "lhs_dilate", "rhs_dilate"):
        window[key] = [int(v) for v in given[key].split("x")] if key in given else [1] * len(size)
    if "pad" in given:
        window["pad"] = [int(pair.split("_")[0]) for pair in given["pad"].split("x")]
    return window


@functools.cache
def _products(
    size: int, *, outputs: int, inputs: int, stride: int, pad: int, holes: int, kernel_holes: int
) -> int:
    """How many pairs of a kernel's and an output's place along an axis meet a real input."""
    total = 0
    for place in range(size):
        for out in range(outputs):
            source = out * stride - pad + place * kernel_holes
            total += source % holes == 0 and 0 <= source // holes < inputs
    return total
