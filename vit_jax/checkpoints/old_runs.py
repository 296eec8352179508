"""Runs from before model.json had a format: how they are read. This is the one place that knows.

Their parameters had no `encoder/` before the paths of the encoder, one class of options stood for
all tasks of a ViT, and config.json alone said whether an average was kept.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import orbax.checkpoint as ocp
from etils import epath

from vit_jax.models import zoo
from vit_jax.models.classifier import PretrainingOptions

_ENCODER = "encoder"


def upgraded(card: Mapping[str, Any], config: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of an old model.json as they are written today."""
    options = card.get("options")
    checkpoint = config.get("checkpoint")
    metric = checkpoint.get("metric") if isinstance(checkpoint, Mapping) else ""
    better = "min" if str(metric).endswith("loss") else "max"
    new = {**card, "average": bool(config.get("ema")), "metric": metric or "", "better": better}
    if not isinstance(options, Mapping):
        return {"family": "vit", **new}
    if "family" in options:
        own = {name: value for name, value in options.items() if name != "family"}
        return {**new, "family": options["family"], "options": own}
    name = _task(options)
    return {**new, "family": name, "options": _of_task(options, name)}


def is_old(folder: epath.Path, items: Mapping[str, Any]) -> bool:
    """Whether the parameters in `folder`, part of a state of `items`, have the paths of then."""
    if not any(map(has_encoder, items.values())):
        return False  # of a family whose paths are as they were
    return _ENCODER not in ocp.StandardCheckpointHandler().metadata(folder)


def has_encoder(tree: Any) -> bool:
    """Whether there is an encoder in a tree of parameters: others have their old paths."""
    return isinstance(tree, Mapping) and _ENCODER in tree


def restore_args(items: Mapping[str, Any]) -> dict[str, ocp.args.PyTreeRestore]:
    """How Orbax restores the items of an old run: without the parts that today's model has not.

    A classifier of the name of a model of pretraining had a decoder or a head that nothing used.
    """
    return {
        name: ocp.args.PyTreeRestore(
            item=tree,
            restore_args=ocp.checkpoint_utils.construct_restore_args(tree),
            partial_restore=True,
        )
        for name, tree in saved(items).items()
    }


def saved(state: Any) -> Any:
    """A state whose every tree of parameters has the paths that an old run has them under.

    The state of an optimizer repeats the tree for each moment.
    """

    def hoisted(tree: Any) -> Any:
        if not has_encoder(tree):
            return tree
        outside = {name: part for name, part in tree.items() if name != _ENCODER}
        return {**tree[_ENCODER], **outside}

    return jax.tree.map(hoisted, state, is_leaf=has_encoder)


def read(state: Any, *, like: Any) -> Any:
    """The inverse of `saved`: what an old run holds, under the paths of `like`."""

    def lowered(tree: Any, old: Any) -> Any:
        if not has_encoder(tree):
            return old
        outside = {name: old[name] for name in tree if name != _ENCODER}
        return {_ENCODER: {name: old[name] for name in tree[_ENCODER]}, **outside}

    return jax.tree.map(lowered, like, state, is_leaf=has_encoder)


def _task(options: Mapping[str, Any]) -> str:
    """The family of a ViT's options: that of a task of pretraining, unless it has classes."""
    if not options.get("num_classes"):
        for name, family in zoo.FAMILIES.items():
            kind = family.options
            if issubclass(kind, PretrainingOptions) and options.get(kind.part):
                return name
    return "vit"


def _of_task(options: Mapping[str, Any], name: str) -> dict[str, Any]:
    """The options without the fields that other tasks alone have."""
    names = {field for entry in zoo.FAMILIES.values() for field in _fields(entry.options)}
    own = _fields(zoo.FAMILIES[name].options)
    return {k: v for k, v in options.items() if k in own or k not in names}


def _fields(kind: type) -> set[str]:
    return {field.name for field in dataclasses.fields(kind)}
