"""Finds a model's arrays among those of its trainer, and removes the trainer's prefixes.

torch.compile, DataParallel, Lightning and self-supervised trainers put prefixes before the names of
a model's arrays, and save other models, losses and queues beside it. The prefix is what stands
before the model's first layer, so a prefix of the model itself, such as `encoder.`, is kept.
"""

import re
from collections.abc import Collection, Iterable, Sequence

# Words that wrappers insert, removed anywhere in a name.
_TRANSPARENT = ("_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module")

# Attributes that usually hold the model and nothing else.
_PLAIN = (
    *("module", "model", "net", "network", "base_model", "wrapped_model", "_forward_module"),
    *("params", "state_dict"),
    *("backbone", "encoder", "trunk", "vit", "visual", "base_encoder", "query_encoder"),
    *("encoder_q", "online_encoder", "online_network", "image_encoder", "vision_encoder"),
    *("vision_tower", "feature_extractor", "context_encoder"),
)
# Averages over training, which the trainers evaluate. They are preferred to other models.
_AVERAGED = (
    *("teacher", "ema", "ema_model", "model_ema", "module_ema", "averaged_model", "teacher_model"),
    *("target_encoder", "target_network"),
)
# Models that are used last: those trained beside an average, and averages that only give targets
# to the trained model (MoCo).
_SECOND = ("student", "student_model", "momentum_encoder", "encoder_k", "key_encoder")
_QUIET = _PLAIN[:9]  # common words: a prefix of only these needs no note

_WORD = "|".join((*_PLAIN, *_AVERAGED, *_SECOND))
_BODIES = "vit|deit|beit|dinov2|dinov2_with_registers|vision_model|swin|bit"
# The first layers of models, in every layout whose names have dots.
_FIRST_LAYER = "|".join(
    (
        r"patch_embed\.(proj|backbone)\.",  # timm's names
        r"conv_proj\.",  # torchvision's
        rf"(({_BODIES})\.)?embeddings\.patch_embeddings?\.",  # Hugging Face's
        rf"(({_BODIES})\.)?embedder\.convolution\.",
        r"stem\.conv\.",  # timm's ResNets
    )
)
_BEGINS = re.compile(rf"((?:(?:{_WORD})\.)*?)(?:{_FIRST_LAYER})")
# A prefix of any other words, used where no known one is found.
_SOMEWHERE = re.compile(rf"((?:\w+\.){{1,4}}?)(?:{_FIRST_LAYER})")
_LEADING = re.compile(rf"(?:(?:{_WORD})\.)*")
# Arrays that trainers save in the model's own module: parts of the loss and training state.
_FOREIGN = re.compile(
    r"(criterion|criterions|criteria|loss|losses|loss_\w+|\w+_loss|optimizer|optimizers|optim"
    r"|scheduler|lr_scheduler|scaler|grad_scaler|metric|metrics|(train|val|valid|test)_\w+"
    r"|n_averaged|queue|queue_ptr|global_step|logit_scale_ema)(\.|$)"
)
# Parts that only a model has, never a wrapper.
_OWN = ("cls_token", "class_token", "dist_token", "reg_token", "pos_embed", "patch_embed", "blocks")
_HEADS = ("head", "heads", "fc", "classifier", "linear")  # the trainer may have these too
_SHOWN = 8  # groups of names in a message


def unwrapped(names: Iterable[str]) -> tuple[dict[str, str], tuple[str, ...]]:
    """Maps names in the file to the model's own names, without other arrays; returns notes too.

    If a file has several copies of a model, an average over training is preferred. Raises
    ValueError where several models are equally good, or where an array outside the model looks
    like a part of it.
    """
    plain = {name: _without_transparent(name) for name in names}
    if len(set(plain.values())) < len(plain):
        removed = " and ".join(_TRANSPARENT)
        raise ValueError(f"two names are equal after removing {removed}")
    roots = _roots(plain.values())
    if not roots:
        return _stripped(plain), ()
    root = _chosen(roots)
    inner = tuple(other for other in roots if other != root and other.startswith(root))
    kept, left = {}, []
    for name, own in plain.items():
        short = own.removeprefix(root)
        if own.startswith(root) and not own.startswith(inner) and not _FOREIGN.match(short):
            kept[name] = short
        else:
            left.append(own)
    _check_outside(left, kept.values(), root, roots)
    return kept, _notes(root, roots, left)


def left_out(names: Iterable[str], root: str = "") -> str:
    """Names as a text, grouped by the first part that is not in the prefix `root`."""
    groups: dict[str, list[str]] = {}
    inside = root.split(".")
    for name in sorted(names):
        name = name if name.isprintable() else ascii(name)
        parts = name.split(".")
        same = (i for i, part in enumerate(parts) if inside[i : i + 1] != [part])
        groups.setdefault(".".join(parts[: next(same, 0) + 1]), []).append(name)
    shown = [
        one[0] if len(one) == 1 else f"{part}.* ({len(one)} arrays)" for part, one in groups.items()
    ]
    more = [f"and {len(shown) - _SHOWN} more"] if len(shown) > _SHOWN else []
    return ", ".join(shown[:_SHOWN] + more)


def _without_transparent(name: str) -> str:
    return ".".join(part for part in name.split(".") if part not in _TRANSPARENT)


def _roots(names: Collection[str]) -> set[str]:
    """The prefixes of models."""
    roots = {match[1] for name in names if (match := _BEGINS.match(name))}
    if not roots:
        found = (_SOMEWHERE.match(name) for name in names if not _FOREIGN.match(name))
        roots = {match[1] for match in found if match}
    return roots


def _chosen(roots: Collection[str]) -> str:
    """The prefix of the model to read. Raises ValueError where several are equally good."""
    outer = [root for root in roots if all(other.startswith(root) for other in roots)]
    if outer:  # this model contains the others, for instance its teacher
        return outer[0]
    ranks = {root: _rank(root) for root in roots}
    first = sorted(root for root in roots if ranks[root] == min(ranks.values()))
    if len(first) > 1:
        raise ValueError(
            f"it holds several models, under {', '.join(map(repr, first))}: save only one of them"
        )
    return first[0]


def _rank(root: str) -> int:
    words = root.split(".")
    if any(word in _SECOND for word in words):
        return 2
    return 0 if any(word in _AVERAGED for word in words) else 1


def _check_outside(
    left: Iterable[str], kept: Collection[str], root: str, roots: Collection[str]
) -> None:
    """Raises ValueError where an array outside the model has the name of a part of the model."""
    parts = {name.split(".")[0] for name in kept} | set(_OWN)
    parts -= set(_HEADS)
    others = tuple(other for other in roots if other and other != root)
    for name in left:
        if name.startswith(others):
            continue
        leading = _LEADING.match(name)
        assert leading  # the match may be empty
        if root.startswith(leading[0]) and name[leading.end() :].split(".")[0] in parts:
            raise ValueError(
                f"{name!r} is not under {root!r}, as the other arrays of the model are"
            )


def _notes(root: str, roots: Collection[str], left: Sequence[str]) -> tuple[str, ...]:
    notes = []
    others = sorted(set(roots) - {root})
    if others or any(word not in _QUIET for word in root.split(".")[:-1]):
        which = f"read the model under {root!r}" if root else "read the model without a prefix"
        notes.append(which + (f", not under {', '.join(map(repr, others))}" if others else ""))
    if left:
        notes.append(f"left out: {left_out(left, root)}")
    return tuple(notes)


def _stripped(names: dict[str, str]) -> dict[str, str]:
    """Removes known prefixes that all names share, where no first layer is known."""
    while prefix := _common_word(names.values()):
        names = {name: own.removeprefix(prefix) for name, own in names.items()}
    return names


def _common_word(names: Collection[str]) -> str:
    words = {name.partition(".")[0] if "." in name else "" for name in names}
    word = words.pop() if len(words) == 1 else ""
    return f"{word}." if word in (*_PLAIN, *_AVERAGED, *_SECOND) else ""
