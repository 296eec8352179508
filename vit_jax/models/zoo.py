"""The zoo: one table from a name to the sizes of a model, and the way to make it.

Names are `SIZE/PATCH` ("B/16"), `ROOT+SIZE/PATCH` ("R50+B/16"), those of BiT's ResNets ("R50x1")
and of Swin ("Swin-T"). Sources of the sizes: Ti, S, B, L, H from "An Image is Worth 16x16 Words"
(arXiv 2010.11929, table 1) and "How to train your ViT?" (2106.10270, table 2); M, g, G from
"Scaling Vision Transformers" (2106.04560, table 2); e from "PaLI" (2209.06794, table 1); So400m
from "Getting ViT in Shape" (2305.13035, section 6); the ResNets from "Big Transfer" (1912.11370);
Swin's from its paper (2103.14030, section 3.3).
"""

import dataclasses
import difflib
from typing import Any, TypeVar

import jax
from flax import nnx

from vit_jax.models.bit import RESNET_V2, BiT, BiTOptions
from vit_jax.models.resnet import StemOptions
from vit_jax.models.swin import Swin, SwinOptions
from vit_jax.models.vit import ViT, ViTOptions

# The type of its options says which model is meant.
Options = ViTOptions | BiTOptions | SwinOptions
Model = ViT | BiT | Swin
AnyOptions = TypeVar("AnyOptions", ViTOptions, BiTOptions, SwinOptions, Options)
_MODELS: dict[type, Any] = {ViTOptions: ViT, BiTOptions: BiT, SwinOptions: Swin}

# name: width D, depth L, MLP width M, heads H
SIZES = {
    "Ti": (192, 12, 768, 3),
    "S": (384, 12, 1536, 6),
    "M": (512, 12, 2048, 8),
    "B": (768, 12, 3072, 12),
    "L": (1024, 24, 4096, 16),
    "So400m": (1152, 27, 4304, 16),
    "H": (1280, 32, 5120, 16),
    "g": (1408, 40, 6144, 16),
    "G": (1664, 48, 8192, 16),
    "e": (1792, 56, 15360, 16),
}

# name: bottlenecks of each stage, patch of the stem's output. In R50+B/16 the fourth stage of a
# ResNet-50 is folded into the third (paper, appendix B.1.3). The root of R+Ti/16 strides 4, not
# the 2 that its name supposes, so its tokens are 32 pixels wide.
HYBRIDS = {
    "R+Ti/16": ((), 8),
    "R26+S/32": ((2, 2, 2, 2), 1),
    "R26+B/32": ((2, 2, 2, 2), 1),
    "R50+B/16": ((3, 4, 9), 1),
    "R50+L/32": ((3, 4, 6, 3), 1),
}

# name: bottlenecks of each stage, width factor
RESNETS = {
    "R50x1": ((3, 4, 6, 3), 1),
    "R50x3": ((3, 4, 6, 3), 3),
    "R101x1": ((3, 4, 23, 3), 1),
    "R101x3": ((3, 4, 23, 3), 3),
    "R152x2": ((3, 8, 36, 3), 2),
    "R152x4": ((3, 8, 36, 3), 4),
}

# name: width of the first stage, blocks of each stage, heads of each stage
SWINS = {
    "Swin-T": (96, (2, 2, 6, 2), (3, 6, 12, 24)),
    "Swin-S": (96, (2, 2, 18, 2), (3, 6, 12, 24)),
    "Swin-B": (128, (2, 2, 18, 2), (4, 8, 16, 32)),
    "Swin-L": (192, (2, 2, 18, 2), (6, 12, 24, 48)),
}

# The plain models that `names` lists; any other SIZE/PATCH can be made too.
PLAIN = (
    *("Ti/16", "S/32", "S/16", "M/16", "B/32", "B/16", "B/8", "L/32", "L/16", "So400m/14"),
    *("H/14", "g/14", "G/14", "e/14"),
)


def names() -> tuple[str, ...]:
    """The transformers of the zoo with a published source."""
    return PLAIN + tuple(HYBRIDS)


def options(name: str, **changes: Any) -> Options:
    """The options of a zoo name, with `changes` to any of their fields.

    Raises ValueError for an unknown name (naming the nearest) or an unknown field.
    """
    return change(_published(name), **changes)


def change(options: AnyOptions, **changes: Any) -> AnyOptions:
    """The options with some fields changed. Raises ValueError for an unknown field."""
    known = {f.name for f in dataclasses.fields(options)}
    for field in changes:
        if field not in known:
            raise ValueError(f"unknown model option {field!r}: {_nearest(field, known)}")
    return dataclasses.replace(options, **changes)


def create(
    name: str,
    *,
    image_size: tuple[int, int] = (224, 224),
    num_classes: int = 1000,
    key: jax.Array | None = None,
    **changes: Any,
) -> Model:
    """A freshly initialised model; `key` defaults to `jax.random.key(0)`."""
    chosen = options(name, image_size=image_size, num_classes=num_classes, **changes)
    return init(chosen, key=jax.random.key(0) if key is None else key)


def init(options: Options, *, key: jax.Array) -> Model:
    """A freshly initialised model of any options. Pure: works under `jax.eval_shape` and jit."""
    return _MODELS[type(options)](options, rngs=nnx.Rngs(params=key))


def _published(name: str) -> Options:
    if name in RESNETS:
        layers, factor = RESNETS[name]
        stem = dataclasses.replace(RESNET_V2, num_layers=layers, root_width=64 * factor)
        return BiTOptions(stem=stem)
    if name in SWINS:
        width, depths, num_heads = SWINS[name]
        return SwinOptions(width=width, depths=depths, num_heads=num_heads)
    return ViTOptions(**_sizes(name))


def _sizes(name: str) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    size, _, patch = name.rpartition("/")
    if name in HYBRIDS:
        layers, patch_of_stem = HYBRIDS[name]
        fields["stem"] = StemOptions(num_layers=layers)
        size, patch = size.split("+")[1], str(patch_of_stem)
    if size not in SIZES or not patch.isdecimal() or int(patch) < 1:
        raise ValueError(f"unknown model {name!r}: {_nearest(name, (*names(), *RESNETS, *SWINS))}")
    width, depth, mlp_dim, num_heads = SIZES[size]
    return fields | {
        "width": width,
        "depth": depth,
        "mlp_dim": mlp_dim,
        "num_heads": num_heads,
        "patch_size": (int(patch), int(patch)),
    }


def _nearest(name: str, known: Any) -> str:
    close = difflib.get_close_matches(name, sorted(known), n=1, cutoff=0.0)
    return f"did you mean {close[0]!r}? Known: {', '.join(known)}"
