"""Orbax, imported when it is first used: that takes 0.3 s, and few commands need it."""

from etils import epy

with epy.lazy_imports():
    import orbax.checkpoint as ocp

__all__ = ["ocp"]
