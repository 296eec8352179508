"""A model inside what trained it: names of wrappers are looked through, what is beside it is left.

torch.compile, DataParallel, Lightning and self-supervised trainers put prefixes before the names of
a model's arrays, and keep other models, losses and queues beside it. Where the model begins is told
by its first layer, so that a prefix such as `encoder.` that is the model's own is kept.
"""

import re
from collections.abc import Collection, Iterable, Sequence

# Wrapping words that add nothing, wherever they stand in a name.
_TRANSPARENT = ("_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module")

# Attributes that hold the model alone, as far as is known.
_PLAIN = (
    *("module", "model", "net", "network", "base_model", "wrapped_model", "_forward_module"),
    *("params", "state_dict"),
    *("backbone", "encoder", "trunk", "vit", "visual", "base_encoder", "query_encoder"),
    *("encoder_q", "online_encoder", "online_network", "image_encoder", "vision_encoder"),
    *("vision_tower", "feature_extractor", "context_encoder"),
)
# Averages over training, which are what the trainers evaluate; and what is trained beside an
# average, or an average that only gives targets to what is trained (MoCo).
_AVERAGED = (
    *("teacher", "ema", "ema_model", "model_ema", "module_ema", "averaged_model", "teacher_model"),
    *("target_encoder", "target_network"),
)
_SECOND = ("student", "student_model", "momentum_encoder", "encoder_k", "key_encoder")
_QUIET = _PLAIN[:9]  # of which nobody asks which model is meant

_WORD = "|".join((*_PLAIN, *_AVERAGED, *_SECOND))
_BODIES = "vit|deit|beit|dinov2|dinov2_with_registers|vision_model|swin|bit"
# The first layer of the models of every layout whose names have dots.
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
# An attribute of any other name, where none of these is there.
_SOMEWHERE = re.compile(rf"((?:\w+\.){{1,4}}?)(?:{_FIRST_LAYER})")
_LEADING = re.compile(rf"(?:(?:{_WORD})\.)*")
# Beside a model in its own module: what makes its loss, and the state of the training.
_FOREIGN = re.compile(
    r"(criterion|criterions|criteria|loss|losses|loss_\w+|\w+_loss|optimizer|optimizers|optim"
    r"|scheduler|lr_scheduler|scaler|grad_scaler|metric|metrics|(train|val|valid|test)_\w+"
    r"|n_averaged|queue|queue_ptr|global_step|logit_scale_ema)(\.|$)"
)
# Of every model, where it has them: a wrapper has none of these.
_OWN = ("cls_token", "class_token", "dist_token", "reg_token", "pos_embed", "patch_embed", "blocks")
_HEADS = ("head", "heads", "fc", "classifier", "linear")  # others may be beside the model
_SHOWN = 8


def unwrapped(names: Iterable[str]) -> tuple[dict[str, str], tuple[str, ...]]:
    """The model's own name of each of its arrays, by the name in the file, and notes in words.

    Where a file holds a model more than once, an average over training is taken before others.
    Raises ValueError where it holds several and none comes first, or where an array of the model
    seems to be outside of it.
    """
    plain = {name: _without_transparent(name) for name in names}
    if len(set(plain.values())) < len(plain):
        raise ValueError(f"its names are not unique without {' and '.join(_TRANSPARENT)}")
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
    """Names in words: those that leave the prefix `root` by the same part together."""
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
    """The prefixes under which there are models."""
    roots = {match[1] for name in names if (match := _BEGINS.match(name))}
    if not roots:
        found = (_SOMEWHERE.match(name) for name in names if not _FOREIGN.match(name))
        roots = {match[1] for match in found if match}
    return roots


def _chosen(roots: Collection[str]) -> str:
    """The prefix of the model to read. Raises ValueError where nothing tells."""
    around = [root for root in roots if all(other.startswith(root) for other in roots)]
    if around:  # a model that holds another, such as its teacher
        return around[0]
    ranks = {root: _rank(root) for root in roots}
    first = sorted(root for root in roots if ranks[root] == min(ranks.values()))
    if len(first) > 1:
        raise ValueError(
            f"it holds several models, under {', '.join(map(repr, first))}: save one of them alone"
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
    """Raises ValueError for an array beside the model that has a name of its parts."""
    parts = {name.split(".")[0] for name in kept} | set(_OWN)
    parts -= set(_HEADS)
    others = tuple(other for other in roots if other and other != root)
    for name in left:
        if name.startswith(others):
            continue
        leading = _LEADING.match(name)
        assert leading  # it may be empty
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
    """Of a model whose first layer is not known: without the prefixes that all names have."""
    while prefix := _common_word(names.values()):
        names = {name: own.removeprefix(prefix) for name, own in names.items()}
    return names


def _common_word(names: Collection[str]) -> str:
    words = {name.partition(".")[0] if "." in name else "" for name in names}
    word = words.pop() if len(words) == 1 else ""
    return f"{word}." if word in (*_PLAIN, *_AVERAGED, *_SECOND) else ""
