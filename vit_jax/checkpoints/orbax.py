"""Orbax, imported when it is first used: that takes 0.3 s, and few commands need it."""

import jax
from etils import epath, epy

with epy.lazy_imports():
    import orbax.checkpoint as ocp

__all__ = ["ocp", "register", "steps"]

# Bytes. Devices that hold the same array each write a part of it, if the parts are not smaller.
SMALLEST_PART = 2**20


def register() -> None:
    """Makes one device write a small array that several devices hold.

    By default Orbax cuts every such array into parts, and each cut is a program that is compiled
    in the first save: with 8 devices, several for each bias of a model.
    """
    ocp.type_handlers.register_type_handler(
        jax.Array,
        ocp.type_handlers.ArrayHandler(min_slice_bytes_for_replica_parallel=SMALLEST_PART),
        override=True,
    )


def steps(folder: epath.Path) -> list[int]:
    """The steps with a finished checkpoint in a folder, in order; [] where there is no folder.

    Only names that a step has count. Orbax would also take `old_7` and `007` for the step 7.
    """
    names = [path.name for path in ocp.utils.checkpoint_steps_paths(folder)]
    return sorted(int(name) for name in names if _is_step(name))


def _is_step(name: str) -> bool:
    return name.isascii() and name.isdecimal() and name == str(int(name))
