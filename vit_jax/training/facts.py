"""Facts that must be equal on all processes of a run: texts by name."""

import hashlib
import importlib.metadata
import os
import pathlib
import zlib
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

import vit_jax
from vit_jax.checkpoints import lease, store
from vit_jax.config import Config
from vit_jax.data.identity import Identity
from vit_jax.text import few
from vit_jax.training import run_config

# Fields that may differ between processes: where files are and how they are read. The content of
# the files is compared.
OWN = ("data.path", "data.threads", "data.prefetch", "init_from")
_LIBRARIES = ("jax", "jaxlib", "flax", "optax", "numpy")
# Settings of JAX that change what a program computes; most come from the environment.
_SETTINGS = (
    *("jax_enable_x64", "jax_default_matmul_precision", "jax_default_prng_impl"),
    *("jax_threefry_partitionable", "jax_numpy_dtype_promotion", "jax_disable_jit"),
)
_PARTS = 200  # the most classes or shards of a split that are compared one by one


def of_start(config: Config, workdir: str | os.PathLike[str]) -> dict[str, str]:
    """The config, the code, and the list of checkpoints."""
    fields = run_config.flat(config)
    facts = {f"config.{name}": repr(v) for name, v in fields.items() if name not in OWN}
    facts |= {name: importlib.metadata.version(name) for name in _LIBRARIES}
    facts |= {name: repr(getattr(jax.config, name)) for name in _SETTINGS}
    facts["vit_jax"] = vit_jax.__version__
    devices = jax.local_devices()
    facts["the devices of a process"] = f"{len(devices)} {devices[0].device_kind}"
    folder = pathlib.Path(vit_jax.__file__).parent
    for path in sorted(folder.rglob("*.py")):
        name = f"the content of vit_jax/{path.relative_to(folder).as_posix()}"
        facts[name] = _short(path.read_bytes())
    facts["the list of checkpoints in the workdir"] = str(store.saved_steps(workdir))
    return facts


def of_plan(
    splits: Mapping[str, Identity],
    params: Mapping[str, Any] | None,
    workdir: str | os.PathLike[str],
    *,
    frozen: Mapping[str, str],
) -> dict[str, str]:
    """What each process read by itself for a run. `frozen`: digests of frozen models by name."""
    return of_data(splits) | of_parameters(params) | of_workdir(workdir) | of_frozen(frozen)


def of_frozen(digests: Mapping[str, str]) -> dict[str, str]:
    """The digests of the frozen models, by name."""
    return {f"the content of config.objective.{name}": digest for name, digest in digests.items()}


def of_data(splits: Mapping[str, Identity]) -> dict[str, str]:
    """The content of the splits."""
    facts = {}
    for split, identity in splits.items():
        data = f"the data ({split})"
        facts[f"{data}: number of images"] = str(identity.examples)
        facts[f"{data}: number of classes"] = str(len(identity.class_names))
        facts[f"{data}: class names"] = _listed(identity.class_names)
        for name, part in list(identity.parts.items())[:_PARTS]:
            facts[f"{data}: number and digest of {name}"] = f"{part.examples} {part.digest}"
        facts[f"{data}: digest"] = identity.digest
    return facts


def of_workdir(workdir: str | os.PathLike[str]) -> dict[str, str]:
    """The workdir, identified by the lease in it: its path may differ between machines."""
    alone = jax.process_count() == 1
    return {} if alone else {"the workdir, by its lease,": lease.seen(workdir) or "another folder"}


def of_parameters(params: Mapping[str, Any] | None) -> dict[str, str]:
    """The parameters of `init_from`, which each process reads by itself."""
    return {} if params is None else {"the content of config.init_from": digest(params)}


def digest(params: Mapping[str, Any]) -> str:
    """A checksum of the names and values of a model's parameters, flat, by path."""
    total = 0
    for name in sorted(params):
        total = zlib.crc32(
            np.ascontiguousarray(params[name]).data, zlib.crc32(name.encode(), total)
        )
    return f"{total:08x}"


def _listed(names: tuple[str, ...]) -> str:
    return f"{few(names, 5)} ({_short(chr(0).join(names).encode(errors='surrogateescape'))})"


def _short(content: bytes) -> str:
    return hashlib.blake2b(content, digest_size=4).hexdigest()
