"""Reads runs whose model.json has no format number. No other module knows about them.

In these runs the paths of the encoder's parameters had no `encoder/` in front, one class of options
served all tasks of a ViT, and only config.json recorded whether an average was kept.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
from etils import epath

from vit_jax.checkpoints.orbax import ocp
from vit_jax.models import zoo
from vit_jax.models.classifier import PretrainingOptions

_ENCODER = "encoder"


def upgraded(card: Mapping[str, Any], config: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of an old model.json in the current form."""
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
    """Whether the parameters in `folder` have the old paths; `items` is the state to restore."""
    if not any(map(has_encoder, items.values())):
        return False  # the paths of this family have not changed
    return _ENCODER not in ocp.StandardCheckpointHandler().metadata(folder)


def has_encoder(tree: Any) -> bool:
    """Whether a tree of parameters has an encoder. The paths of other trees have not changed."""
    return isinstance(tree, Mapping) and _ENCODER in tree


def restore_args(items: Mapping[str, Any]) -> dict[str, Any]:
    """How Orbax restores the items of an old run: parts that the model lacks are left out.

    An old classifier with the name of a pretraining model had an unused decoder or head.
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
    """A state with the paths of an old run, in every tree of parameters.

    An optimizer's state has such a tree for each moment.
    """

    def hoisted(tree: Any) -> Any:
        if not has_encoder(tree):
            return tree
        outside = {name: part for name, part in tree.items() if name != _ENCODER}
        return {**tree[_ENCODER], **outside}

    return jax.tree.map(hoisted, state, is_leaf=has_encoder)


def read(state: Any, *, like: Any) -> Any:
    """The inverse of `saved`: the state of an old run with the paths of `like`."""

    def lowered(tree: Any, old: Any) -> Any:
        if not has_encoder(tree):
            return old
        outside = {name: old[name] for name in tree if name != _ENCODER}
        return {_ENCODER: {name: old[name] for name in tree[_ENCODER]}, **outside}

    return jax.tree.map(lowered, like, state, is_leaf=has_encoder)


def _task(options: Mapping[str, Any]) -> str:
    """The family of an old ViT's options: that of its pretraining task, unless it has classes."""
    if not options.get("num_classes"):
        for name, family in zoo.FAMILIES.items():
            kind = family.options
            if issubclass(kind, PretrainingOptions) and options.get(kind.part):
                return name
    return "vit"


def _of_task(options: Mapping[str, Any], name: str) -> dict[str, Any]:
    """The options without the fields that belong only to other tasks."""
    names = {field for entry in zoo.FAMILIES.values() for field in _fields(entry.options)}
    own = _fields(zoo.FAMILIES[name].options)
    return {k: v for k, v in options.items() if k in own or k not in names}


def _fields(kind: type) -> set[str]:
    return {field.name for field in dataclasses.fields(kind)}
