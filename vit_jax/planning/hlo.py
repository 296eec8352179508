"""Reads the text of a compiled program (HLO): computations, instructions, shapes, loop counts."""

import dataclasses
import functools
import math
import re
from collections.abc import Iterator, Mapping

_BYTES = {
    **{"pred": 1, "s4": 0.5, "u4": 0.5, "s8": 1, "u8": 1, "f8e4m3fn": 1, "f8e5m2": 1},
    **{"s16": 2, "u16": 2, "bf16": 2, "f16": 2, "s32": 4, "u32": 4, "f32": 4},
    **{"s64": 8, "u64": 8, "f64": 8},
}
# A shape as in `bf16[64,197,768]{2,1,0:T(8,128)(2,1)S(1)}`: dtype, sizes, layout.
_SHAPE = re.compile(rf"\b({'|'.join(_BYTES)})\[([0-9,]*)\](\{{[^}}]*\}})?")
_INSTRUCTION = re.compile(r"^\s+(ROOT )?%?([\w.\-]+) = (.*?) ([a-z][\w\-]*)\((.*)$")
_COMPUTATION = re.compile(r"^(ENTRY )?%?([\w.\-]+)")
_NAME = re.compile(r"%([\w.\-]+)")
_ON_CHIP = "S(1)"  # the memory space of arrays that are not in the HBM


@dataclasses.dataclass(frozen=True)
class Instruction:
    """One operation of a computation."""

    name: str
    shape: str  # text of the type of its result
    op: str
    operands: tuple[str, ...]  # names
    arguments: str  # text between the parentheses
    attributes: str  # text after them
    root: bool

    def reference(self, key: str) -> str:
        """The computation that an attribute names, or ""."""
        match = re.search(rf"\b{key}=%?([\w.\-]+)", self.attributes)
        return match.group(1) if match else ""

    @functools.cached_property
    def cycles(self) -> int | None:
        """The compiler's estimate of the duration in clock cycles, if it made one."""
        match = re.search(r'"estimated_cycles":"(\d+)"', self.attributes)
        return int(match.group(1)) if match else None

    @functools.cached_property
    def source(self) -> str:
        """The name of the operation in the traced program, such as jit(step)/.../dot_general."""
        match = re.search(r'op_name="([^"]*)"', self.attributes)
        return match.group(1) if match else ""


Computation = Mapping[str, Instruction]  # by name, in the order of the schedule


@dataclasses.dataclass(frozen=True)
class Program:
    """A compiled program."""

    computations: Mapping[str, Computation]
    entry: str


def parse(text: str) -> Program:
    """The program of the text of a compiled module. Raises ValueError if it has no entry."""
    computations: dict[str, dict[str, Instruction]] = {}
    current: dict[str, Instruction] | None = None
    entry = ""
    for line in text.splitlines():
        if line and line[0] not in " }" and line.rstrip().endswith("{") and "(" in line:
            match = _COMPUTATION.match(line)
            assert match is not None
            current = computations[match.group(2)] = {}
            entry = match.group(2) if match.group(1) else entry
        elif line.startswith("}"):
            current = None
        elif current is not None and (found := _INSTRUCTION.match(line)):
            one = _instruction(*found.groups())
            current[one.name] = one
    if not entry:
        raise ValueError("the text of the program has no ENTRY: it is not HLO of a module")
    return Program(computations, entry)


def _instruction(root: str | None, name: str, shape: str, op: str, rest: str) -> Instruction:
    end, depth = len(rest), 1
    for match in re.finditer(r"[()]", rest):
        depth += 1 if match.group() == "(" else -1
        if not depth:
            end = match.start()
            break
    arguments = rest[:end]
    operands = tuple(_NAME.findall(arguments)) if op not in ("constant", "parameter") else ()
    return Instruction(name, shape, op, operands, arguments, rest[end + 1 :], root is not None)


def arrays(shape: str) -> list[tuple[str, tuple[int, ...]]]:
    """The dtype and sizes of every array of a type."""
    return [(dtype, _sizes(sizes)) for dtype, sizes, _ in _SHAPE.findall(shape)]


def sizes(shape: str) -> tuple[int, ...]:
    """The sizes of the first array of a type."""
    return arrays(shape)[0][1]


def _sizes(text: str) -> tuple[int, ...]:
    return tuple(int(size) for size in text.split(",") if size)


def array_bytes(shape: str) -> float:
    """The bytes of the arrays of a type."""
    return sum(_BYTES[dtype] * math.prod(sizes) for dtype, sizes in arrays(shape))


def hbm_bytes(shape: str) -> float:
    """The bytes of those arrays of a type that are in the HBM."""
    return sum(array_bytes(part) for part in array_texts(shape) if _ON_CHIP not in part)


def array_texts(shape: str) -> list[str]:
    """The text of every array of a type."""
    return [match.group() for match in _SHAPE.finditer(shape)]


def elements(shape: str) -> list[str]:
    """The texts of the elements of a tuple type, or the type itself."""
    if not shape.startswith("("):
        return [shape]
    found, depth, start = [], 0, 1
    for match in re.finditer(r"[(\[{)\]},]", shape[1:-1]):
        character, place = match.group(), match.start() + 1
        if character == "," and not depth:
            found.append(shape[start:place].strip())
            start = place + 1
        elif character != ",":
            depth += 1 if character in "([{" else -1
    return [*found, shape[start:-1].strip()]


def trips(program: Program, where: Computation, loop: Instruction) -> int:
    """How often the body of a `while` runs; 1 if the text does not tell."""
    if known := re.search(r'"known_trip_count":\{"n":"(\d+)"', loop.attributes):
        return int(known.group(1))
    condition = program.computations[loop.reference("condition")]
    bound, index = _bound(program, condition)
    if not bound:
        return 1
    step = _step(program.computations[loop.reference("body")], index)
    initial, start = where.get(loop.operands[0]), 0
    if initial is not None and initial.op == "tuple" and index < len(initial.operands):
        start = _constant(where, initial.operands[index]) or 0
    return -(-(bound - start) // step)


def _bound(program: Program, condition: Computation) -> tuple[int | None, int]:
    """The number that ends a loop, and the place of its counter in the tuple of the loop."""
    bound, index = None, 0
    for one in condition.values():
        for operand in one.operands if one.op == "compare" else ():
            value = _constant(condition, operand)
            if value is not None:
                bound = value
            elif operand in condition and condition[operand].op == "get-tuple-element":
                index = _tuple_index(condition[operand])
    if bound is None:  # the comparison is inside a fusion
        inner = [program.computations[r] for o in condition.values() if (r := o.reference("calls"))]
        values = [
            value
            for computation in (condition, *inner)
            for name in computation
            if (value := _constant(computation, name)) is not None and value >= 0
        ]
        bound = max(values, default=None)
    return bound, index


def _tuple_index(one: Instruction) -> int:
    match = re.search(r"index=(\d+)", one.attributes)
    return int(match.group(1)) if match else 0


def _constant(where: Computation, name: str) -> int | None:
    """The value of a whole number that does not change, else None."""
    for _ in range(6):
        one = where.get(name)
        if one is None:
            return None
        if one.op == "constant":
            return int(one.arguments) if re.fullmatch(r"-?\d+", one.arguments) else None
        if one.op not in ("copy", "bitcast", "convert"):
            return None
        name = one.operands[0]
    return None


def _step(body: Computation, index: int) -> int:
    """By how much an iteration raises the counter of its loop."""
    root = next((one for one in body.values() if one.root), None)
    if root is None or root.op != "tuple" or index >= len(root.operands):
        return 1
    name, total = root.operands[index], 0
    for _ in range(8):
        one = body.get(name)
        if one is None or one.op not in ("add", "copy", "bitcast"):
            break
        if one.op == "add":
            constants = [_constant(body, operand) for operand in one.operands[:2]]
            if constants == [None, None]:
                break
            place = 1 if constants[1] is not None else 0
            total += constants[place] or 0
            name = one.operands[1 - place]
        else:
            name = one.operands[0]
    return total or 1


def called(program: Program, name: str) -> Iterator[Instruction]:
    """The instructions of a computation and of all fusions inside it."""
    for one in program.computations.get(name, {}).values():
        yield one
        if inner := one.reference("calls"):
            yield from called(program, inner)
