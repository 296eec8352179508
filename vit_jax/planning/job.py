"""What is compiled, and what comes of it: the messages between a plan and its workers."""

import contextlib
import dataclasses
import hashlib
import importlib.metadata
import json
import os
import pathlib
from collections.abc import Mapping
from typing import Any

import vit_jax
from vit_jax import config as config_lib
from vit_jax.config import Config
from vit_jax.data.record import DataFacts
from vit_jax.planning import topologies
from vit_jax.planning.topologies import Topology
from vit_jax.workdir import place

CUDA = ("jax-cuda13-plugin", "jax-cuda12-plugin")
# The parts of the package that cannot change a compiled program.
_NOT_COMPILED = ("planning", "benchmark", "commands", "analysis", "export")
# But these parts of planning can, or say what a kept result contains.
_COMPILED = ("worker.py", "designed.py", "model_flops.py", "topologies.py", "job.py")
# Variables that the compiler reads, beside those of JAX.
_COMPILER_FLAGS = ("LIBTPU_INIT_ARGS", "XLA_FLAGS")
# Variables of JAX that cannot change a program: they say where compiled programs are kept, and
# which platform this process uses. In a key they would make a plan compile again for nothing. A
# worker has its own values of most of them anyway (`compiling._SETTINGS`).
_NOT_OF_PROGRAMS = (
    *("JAX_COMPILATION_CACHE", "JAX_PERSISTENT_CACHE", "JAX_ENABLE_COMPILATION_CACHE"),
    *("JAX_PLATFORM", "JAX_SKIP_CUDA_CONSTRAINTS_CHECK"),
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Job:
    """A step to compile for a topology. With `probe` only its memory is found, which is fast."""

    config: Config
    facts: DataFacts
    topology: Topology
    probe: bool = False
    options: Mapping[str, str | int] = dataclasses.field(default_factory=dict)  # of the compiler

    def to_json(self) -> str:
        return json.dumps(
            {
                "config": config_lib.to_fields(self.config),
                "train_size": self.facts.train_size,
                "num_classes": self.facts.num_classes,
                # Without the machines of its hosts, which change no program.
                "topology": f"{self.topology.slices}x{self.topology.compiler_name}",
                "probe": self.probe,
                "options": dict(self.options),
            },
            sort_keys=True,
        )

    @property
    def key(self) -> str:
        """The name of the result in the cache: a digest of all that it depends on."""
        used = versions(self.topology.chip.platform)
        settings = json.dumps(compiler_settings())
        parts = (self.to_json(), *used.values(), settings, _source_digest())
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:32]


def of_json(text: str) -> Job:
    content = json.loads(text)
    return Job(
        config=config_lib.of_fields(content["config"]),
        facts=DataFacts(train_size=content["train_size"], num_classes=content["num_classes"]),
        topology=topologies.parse(content["topology"]),
        probe=content["probe"],
        options=content["options"],
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Bytes:
    """What every device holds during the whole step, in bytes, by what it is for."""

    parameters: float
    optimizer: float
    average: float
    gradients: float  # as large as the parameters that train
    batch: float
    frozen: float
    activations: float  # kept from the forward pass for the backward pass, as it is traced


@dataclasses.dataclass(frozen=True, kw_only=True)
class Step:
    """Facts of a designed step; no compiler is needed to find them."""

    mesh: dict[str, int]
    slice_of: list[int]  # the slice or node of each device in the order of the mesh; []: one
    parameters: int
    steps: int  # of the run
    flops: float  # of a step on all devices, as the model asks for them
    traced_flops: float  # these, and what the backward pass recomputes as config.model.remat says
    bytes: Bytes
    tokens: int  # of an image, that are computed together; 0 if the model has none
    widths: dict[str, int]  # of the matrix products, by the name of the field
    image_bytes: int  # of an image as it crosses to the device
    remat: str
    unroll: int

    @property
    def batch_parts(self) -> int:
        """The parts into which the mesh divides a batch."""
        return self.mesh["data"] * self.mesh["fsdp"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Result:
    """What a worker found. After a `failure` the rest is missing or incomplete."""

    step: Step | None = None
    program: str = ""  # the name of the compiled program in the cache
    needed: float = 0.0  # bytes of HBM that the step needs at its peak, per device
    fits: bool = True
    seconds: float = 0.0  # of compilation
    failure: str = ""  # why the step cannot be compiled
    bad_input: bool = False  # whether the failure is about the config


def result_to_json(result: Result) -> str:
    return json.dumps(dataclasses.asdict(result))


def result_of_json(text: str) -> Result:
    content: dict[str, Any] = json.loads(text)
    if step := content["step"]:
        content["step"] = Step(**{**step, "bytes": Bytes(**step["bytes"])})
    return Result(**content)


def versions(platform: str = "tpu") -> dict[str, str]:
    """The versions of JAX and of the compiler for a platform, "" if it is missing."""
    names = ("libtpu",) if platform == "tpu" else CUDA
    found = {"jax": importlib.metadata.version("jax"), names[0]: ""}
    for name in names:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            return found | {names[0]: importlib.metadata.version(name)}
    return found


def compiler_settings(environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    """The variables of the environment that can change a compiled program, by their names."""
    return {
        name: environment[name]
        for name in sorted(environment)
        if name in _COMPILER_FLAGS
        or (name.startswith("JAX_") and not name.startswith(_NOT_OF_PROGRAMS))
    }


def _source_digest() -> str:
    """A digest of the source of this package, less the parts that cannot change a program."""
    root = pathlib.Path(vit_jax.__file__).parent
    digest = hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        place = path.relative_to(root)
        if place.parts[0] not in _NOT_COMPILED or place.name in _COMPILED:
            digest.update(str(place).encode() + path.read_bytes())
    return digest.hexdigest()


def keep(folder: pathlib.Path, name: str, result: Result) -> None:
    """Writes a result to `folder`/`name`.json."""
    place.write_whole(folder / f"{name}.json", result_to_json(result).encode())


def kept(folder: pathlib.Path, name: str, *, with_text: bool) -> Result | None:
    """The result that `keep` wrote; None if it is missing, damaged or of another version.

    `with_text`: if it fits, the text of its program must be there too. The cache removes the files
    that are the oldest, each by itself, so what is used here counts as new from now on.
    """
    path = folder / f"{name}.json"
    try:
        result = result_of_json(path.read_text())
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
    used = [path]
    if with_text and result.fits and not result.failure:
        used.append(text_path(folder, result.program))
    for file in used:
        with contextlib.suppress(OSError):  # the folder may be of another user
            os.utime(file)
    return result if used[-1].exists() else None


def text_path(folder: pathlib.Path, program: str) -> pathlib.Path:
    """Where the text of a compiled program is kept."""
    return folder / f"{program}.hlo.gz"
