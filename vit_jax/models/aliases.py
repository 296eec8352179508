"""Names of models as papers and other libraries write them.

A library's name stands for a model of the zoo with that library's numerics: the GELU, the epsilon
of the norms, the padding of Swin's windows. A name is only understood as a whole. A name with an
unknown word, such as `vit_base_patch16_clip_224`, stands for another model and is refused.
"""

import dataclasses
import difflib
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from vit_jax.models.preprocessing import IMAGENET_MEAN, IMAGENET_STD

# The sizes, as timm and Hugging Face spell them.
_SIZES = {
    **{"tiny": "Ti", "small": "S", "medium": "M", "base": "B", "large": "L", "huge": "H"},
    **{"giant": "g", "gigantic": "G"},
}
_SERIES = {"vit": "", "deit": "DeiT-", "deit3": "DeiT-III-", "beit": "BEiT-"}

_IMAGENET = {"mean": IMAGENET_MEAN, "std": IMAGENET_STD}
_ERF = {"activation": "gelu_erf"}
_HUGGING_FACE = _ERF | {"norm_eps": 1e-12}
_PADDED_FIRST = {"padding": "before_shift"}
# Numerics of the ResNets of timm and Hugging Face, which differ from those of the paper's code.
_STEM = {"std_eps": 1e-8, "std_eps_in": "variance", "norm_eps": 1e-5}
_BIT = {"stem": {"std_eps": 1e-8, "pool_padding": "zero"}}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Alias:
    """The model that a name stands for."""

    name: str  # of the zoo
    # Options in which the library's model differs; a mapping has fields of a part.
    fields: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    # How that library's weights expect images where it differs: fields of `Preprocessing`.
    input: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    library: str = ""  # the library that has these options
    side: int = 0  # the image size in the name; 0: it has none

    def described(self, written: str) -> str:
        """`vit_b_16 is B/16 with activation='gelu_erf', as in torchvision`."""
        own = {**self.fields, **self.input}
        fields = ", ".join(f"{key}={value!r}" for key, value in own.items())
        changed = f" with {fields}, as in {self.library}" if fields else ""
        return f"{written} is {self.name}{changed}"

    def of_size(self, image_size: Sequence[int]) -> str:
        """A remark if the name has another image size than the model, else ""."""
        height, width = image_size[0], image_size[-1]
        if not self.side or (height, width) == (self.side, self.side):
            return ""
        return f"; its name has {self.side} pixels, image_size is {height}x{width}"


def find(name: str, known: Sequence[str], *, exists: Callable[[str], bool]) -> Alias | None:
    """The model that a name stands for; None if no model, or more than one, is meant.

    A name of a library may stand for any name of the zoo that `exists`, a shorter way to write a
    name only for one of the `known` names.
    """
    for pattern, read in _LIBRARIES:
        if match := re.fullmatch(pattern, name):
            alias = read(match)
            return alias if alias and exists(alias.name) else None
    plain = re.sub(r"(?i)^bit-([sm]-)?(?=r)", "", name)
    exact = [one for one in known if _letters(one) == _letters(plain)]
    if name.islower():  # the author may not distinguish g from G
        exact = [one for one in known if _letters(one).lower() == _letters(plain)]
    exact = exact or [one for one in known if _letters(one).lower() == _letters(plain).lower()]
    return Alias(name=exact[0]) if len(exact) == 1 else None


def spellings(name: str, known: Sequence[str]) -> dict[str, str]:
    """At most three names of timm that are similar to `name`, and their models in `known`.

    The names of Hugging Face differ from those of timm in the separators only.
    """
    owner, _, plain = name.lower().rpartition("/")
    if not plain.startswith(tuple(_SERIES)):  # the slash is that of B/16
        plain = f"{owner}/{plain}" if owner else plain
    plain = re.sub(r"_\d\d\d$", "", plain.partition(".")[0].replace("-", "_"))
    words = {size: word for word, size in _SIZES.items()}
    spelt = {}
    for series, prefix in _SERIES.items():
        for one in known:
            size, _, patch = one.removeprefix(prefix).partition("/")
            if one.startswith(prefix) and size in words and patch:
                spelt[f"{series}_{words[size]}_patch{patch}"] = one
    close = difflib.get_close_matches(plain, spelt, n=3, cutoff=0.85)
    return {text: spelt[text] for text in close}


def _letters(name: str) -> str:
    """A name without separators, except between digits, and without the word ViT."""
    text = re.sub(r"(?i)(?<![a-z])vit", "", name)
    text = re.sub(r"(?i)(?<![a-z])deit3(?=[-_])", "DeiT-III", text)
    return re.sub(r"(?<!\d)[-_/+ ]|[-_/+ ](?!\d)", "", text)


def _timm(match: re.Match[str]) -> Alias | None:
    series, size, distilled, patch, side = match.groups()
    if distilled and series != "deit":
        return None
    prefix = "DeiT-distilled-" if distilled else _SERIES[series]
    own: Mapping[str, Mapping[str, Any]] = {"vit": _ERF, "deit3": {"layer_scale": 1e-6}}
    return Alias(
        name=f"{prefix}{_SIZES[size]}/{patch}",
        fields=own.get(series, {}),
        input=_IMAGENET if re.search(r"\.(mae|dino)$", match.string) else {},
        library="timm",
        side=int(side or 0),
    )


def _timm_hybrid(match: re.Match[str]) -> Alias:
    size, root, stride, patch, side = match.groups()
    token = 16 if patch else int(stride)  # R+Ti/16 has a root of stride 4 and patches of 8
    name = f"R{root}+{_SIZES[size]}/{token}"
    return Alias(name=name, fields=_ERF | {"stem": _STEM}, library="timm", side=int(side))


def _swin(match: re.Match[str]) -> Alias:
    size, separator, window, side = match.groups()
    fields: dict[str, Any] = {} if window == "7" else {"windows": ((int(window), int(window)),)}
    hugging_face = separator == "-"
    fields |= _PADDED_FIRST if hugging_face else {}
    return Alias(
        name=f"Swin-{size[0].upper()}",
        fields=fields,
        library="Hugging Face" if hugging_face else "timm",
        side=int(side),
    )


def _hugging_face(match: re.Match[str]) -> Alias | None:
    series, size, distilled, patch, side = match.groups()
    if distilled and series != "deit":
        return None
    prefix = "DeiT-distilled-" if distilled else _SERIES[series]
    fields = {"norm_eps": 1e-12} if prefix else _HUGGING_FACE
    name = f"{prefix}{_SIZES[size]}/{patch}"
    return Alias(name=name, fields=fields, library="Hugging Face", side=int(side))


def _hugging_face_beit(match: re.Match[str]) -> Alias:
    """BEiT with the head that predicts visual tokens."""
    name = f"BEiT-pretrain-{_SIZES[match[1]]}/{match[2]}"
    fields = {"norm_eps": 1e-12}
    return Alias(name=name, fields=fields, library="Hugging Face", side=int(match[3]))


def _hugging_face_mae(match: re.Match[str]) -> Alias:
    size, patch = _SIZES[match[1]], 14 if match[1] == "huge" else 16
    name = f"MAE-pretrain-{size}/{patch}"
    return Alias(name=name, fields={"norm_eps": 1e-12}, library="Hugging Face", side=224)


def _hugging_face_hybrid(match: re.Match[str]) -> Alias:
    stem = _STEM | {"pool_padding": "zero"}
    fields = _HUGGING_FACE | {"stem": stem}
    return Alias(name="R50+B/16", fields=fields, library="Hugging Face", side=int(match[1]))


def _torchvision(match: re.Match[str]) -> Alias:
    name = f"{match[1].upper()}/{match[2]}"
    return Alias(name=name, fields=_ERF, input=_IMAGENET, library="torchvision")


def _torchvision_swin(match: re.Match[str]) -> Alias:
    return Alias(name=f"Swin-{match[1].upper()}", fields=_PADDED_FIRST, library="torchvision")


def _resnet(match: re.Match[str]) -> Alias:
    return Alias(name=f"ResNet-{match[1]}")


def _regnet(_: re.Match[str]) -> Alias:
    return Alias(name="RegNetY-160")


def _timm_bit(match: re.Match[str]) -> Alias:
    return Alias(name=f"R{match[1]}", fields=_BIT, library="timm")


def _hugging_face_bit(match: re.Match[str]) -> Alias:
    return Alias(name=f"R{match[1]}x1", fields=_BIT, library="Hugging Face")


_WORD = f"({'|'.join(_SIZES)})"
# The owner on a hub, and the name of weights, which does not change the model.
_TIMM = r"(?:hf[_-]hub:)?(?:timm/)?{}(?:\.[a-z0-9_]+)?"
_HUB = r"(?:hf:)?(?:[\w.-]+/)?{}"
_LIBRARIES: tuple[tuple[str, Callable[[re.Match[str]], Alias | None]], ...] = (
    (
        _TIMM.format(
            rf"(vit|deit3?|beit)_{_WORD}(_distilled)?_patch(\d+)(?:_(\d\d+))?"
            r"(?:_in21k|_in22k|_in21ft1k|_in22ft1k)?"
        ),
        _timm,
    ),
    (_TIMM.format(rf"vit_{_WORD}_r(\d*)_s(\d+)(_p8)?_(\d+)(?:_in21k)?"), _timm_hybrid),
    (_TIMM.format(r"swin_(tiny|small|base|large)_patch4(_)window(\d+)_(\d+)(?:_in22k)?"), _swin),
    (_TIMM.format(r"resnetv2_(\d+x\d)_bitm?(?:_in21k)?"), _timm_bit),
    (
        _HUB.format(
            rf"(vit|deit|beit)-{_WORD}(-distilled)?-patch(\d+)-(\d\d+)"
            r"(?:-in21k|-pt22k-ft22k|-pt22k-ft22kto1k|-pt22k-ft1k)?"
        ),
        _hugging_face,
    ),
    (_HUB.format(rf"beit-{_WORD}-patch(\d+)-(\d\d+)-pt22k"), _hugging_face_beit),
    (_HUB.format(r"vit-mae-(base|large|huge)"), _hugging_face_mae),
    (_HUB.format(r"vit-hybrid-base-bit-(\d+)"), _hugging_face_hybrid),
    (_HUB.format(r"swin-(tiny|small|base|large)-patch4(-)window(\d+)-(\d+)(?:-in22k)?"), _swin),
    (_HUB.format(r"bit-(50)"), _hugging_face_bit),
    (r"vit_([blh])_(\d+)", _torchvision),
    (r"swin_([tsb])", _torchvision_swin),
    # These are the same models in timm, Hugging Face and torchvision.
    (_TIMM.format(r"resnet(18|34|50|101|152)"), _resnet),
    (_HUB.format(r"resnet-(18|34|50|101|152)"), _resnet),
    (_TIMM.format(r"regnety_160"), _regnet),
    (r"regnet_y_16gf", _regnet),
    (_HUB.format(r"regnet-y-160"), _regnet),
)
