"""Guesses which model a misspelt name, or a name of another library, stands for."""

import difflib
import re
from collections.abc import Callable, Sequence

from vit_jax.models.aliases import spellings

# The sizes, as timm, Hugging Face and torchvision write them.
_SIZES = {
    **{"tiny": "Ti", "small": "S", "medium": "M", "base": "B", "large": "L", "huge": "H"},
    **{"giant": "g", "gigantic": "G", "so400m": "So400m"},
    **{"ti": "Ti", "s": "S", "m": "M", "b": "B", "l": "L", "h": "H", "g": "g", "t": "Ti"},
}
# Words in a name, and the prefix they stand for; the first match counts. "" is a plain ViT.
_FAMILIES = (
    *(("deit3", "DeiT-III-"), ("deit-iii", "DeiT-III-"), ("distilled", "DeiT-distilled-")),
    *(("deit", "DeiT-"), ("beit", "BEiT-"), ("mae", "MAE-"), ("vit", "")),
)


def nearest(name: str, known: Sequence[str]) -> str:
    """The hint `did you mean 'x'? Known: ...` for a message."""
    return f"did you mean {_close(name, known)[0]!r}? Known: {', '.join(known)}"


def suggested(name: str, known: Sequence[str], *, exists: Callable[[str], bool]) -> str:
    """The hint `did you mean 'x', 'y' or 'z'? ...` for a message about the name of a model."""
    spelt = spellings(name, known)
    meant = (
        *(one for one in known if _alphanumeric(one) == _alphanumeric(name)),  # g/14 and G/14
        _translated(name, known.__contains__),
        *spelt,
        *_close(name, known, cutoff=0.6),
        _translated(name, exists),
        *_close(name, known),
    )
    models: dict[str, str] = {}  # each model once, by its name in the zoo
    for one in filter(None, meant):
        models.setdefault(spelt.get(one, one), one)
    first, second, third, *_ = map(repr, models.values())
    return (
        f"did you mean {first}, {second} or {third}? The command `vit_jax models` lists all models,"
        " and any SIZE/PATCH works, such as 'S/8'"
    )


def _close(name: str, known: Sequence[str], *, cutoff: float = 0.0) -> list[str]:
    """At most three known names, the most similar first."""
    lower = {one.lower(): one for one in known}
    close = difflib.get_close_matches(name.lower(), sorted(lower), n=3, cutoff=cutoff)
    return [lower[one] for one in close]


def _alphanumeric(name: str) -> str:
    return re.sub(r"[^a-z0-9]|vit", "", name.lower())


def _translated(name: str, exists: Callable[[str], bool]) -> str:
    """A name of the zoo with the size and the patch of a name of another library, or ""."""
    text = name.lower()
    if resnet := re.search(r"(?:^|[^a-z0-9])r?(\d+x\d)(?!\d)", text):
        return _first([f"R{resnet[1]}"], exists)
    words = "|".join(sorted(_SIZES, key=len, reverse=True))
    swin = re.search(rf"swin[-_]({words})(?![a-z])", text)
    if swin:
        return _first([f"Swin-{_SIZES[swin[1]][0]}"], exists)
    if hybrid := re.search(rf"({words})_r(\d+)_s(\d+)", text):
        return _first([f"R{hybrid[2]}+{_SIZES[hybrid[1]]}/{hybrid[3]}"], exists)
    found = re.search(rf"(?<![a-z])({words})(?![a-z])[-_/]?(?:[a-z_-]*patch[-_]?)?(\d+)", text)
    if not found:
        return ""
    plain = f"{_SIZES[found[1]]}/{found[2]}"
    root = re.search(r"(?<![a-z0-9])r(\d*)[+_-]", text)
    family = next((prefix for word, prefix in _FAMILIES if word in text), "")
    rooted = [f"R{root[1]}+{plain}"] if root else []
    return _first([*rooted, family + plain, plain], exists)


def _first(names: Sequence[str], exists: Callable[[str], bool]) -> str:
    return next(filter(exists, names), "")
