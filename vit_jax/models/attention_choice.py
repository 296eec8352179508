"""Which attention a model runs with on a platform."""

import re

import jax

from vit_jax.models import zoo
from vit_jax.models.attention import cudnn_needs
from vit_jax.models.classifier import ViTOptions
from vit_jax.models.model import AnyOptions
from vit_jax.models.options import EncoderOptions
from vit_jax.models.swin import SwinOptions


def runnable(options: AnyOptions, *, platform: str) -> AnyOptions:
    """The same model with an attention that this platform ("cpu", "gpu", "tpu") supports.

    On GPUs, "auto" is cuDNN's attention where it was measured to be faster, and the plain form
    elsewhere (docs/gpu.md).
    """
    if not isinstance(options, EncoderOptions | SwinOptions):
        return options
    if platform != "gpu":
        return zoo.change(options, attention="auto") if options.attention == "cudnn" else options
    if options.attention != "auto":
        return options
    return zoo.change(options, attention="cudnn" if _cudnn_is_faster(options) else "xla")


def plain(options: AnyOptions) -> AnyOptions:
    """The same model with the plain form of attention, of which every product can be counted.

    Calls of cuDNN hide theirs, and faster forms have products of their own.
    """
    if not isinstance(options, EncoderOptions | SwinOptions):
        return options
    return zoo.change(options, attention="xla")


def _cudnn_is_faster(options: EncoderOptions | SwinOptions) -> bool:
    """Whether this process has one GPU, and cuDNN's attention of such a model was measured there.

    Unrolled blocks are left out, because XLA may fail: see `training.compute.check`.
    """
    if not isinstance(options, ViTOptions) or options.unroll > 1 or options.position == "relative":
        return False
    head = options.width // options.num_heads
    if options.relative_bias != "none" or head > 128 or cudnn_needs(options.dtype, head=head):
        return False
    devices = jax.devices()
    capability = str(getattr(devices[0], "compute_capability", ""))  # of AMD's GPUs: a name
    known = re.fullmatch(r"(\d+)\.\d+", capability)
    return len(devices) == 1 and known is not None and int(known[1]) >= 8
