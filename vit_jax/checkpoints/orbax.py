"""Orbax, imported when it is first used: that takes 0.3 s, and few commands need it."""

import jax
from etils import epy

with epy.lazy_imports():
    import orbax.checkpoint as ocp

__all__ = ["ocp", "register"]

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
