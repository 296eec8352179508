"""The compute options that are "auto", chosen for the devices and the sizes of a run.

They change how fast a step is and what memory it needs, and its results by rounding only. A saved
model keeps "auto". The rules come from measurements on CPUs and from steps that were compiled for
TPUs: see docs/performance.md.
"""

import math
from typing import Any

import jax
from jax.sharding import Mesh

from vit_jax.models import attention, zoo
from vit_jax.models.options import EncoderOptions
from vit_jax.models.swin import SwinOptions
from vit_jax.models.zoo import Options
from vit_jax.parallel import mesh as mesh_lib
from vit_jax.parallel.chips import CHIPS
from vit_jax.training import state

# Compiling for a TPU takes 5 to 9 seconds on one core for each block of an unrolled stack.
UNROLLED_BLOCKS = 16
STATE_BYTES = 16  # of a parameter: its value, its gradient and two moments, float32
FEW_TOKENS = 8  # before the patches, which are cheap in an array of their own
SPARE = 0.85  # share of the memory that the estimate may fill
_MEMORY = {chip.kind: chip.memory for chip in CHIPS}
_WIDE_MEMORY = ("TPU v5", "TPU7x")  # reading queries, keys and values is faster than a product


def choose(options: Options, mesh: Mesh, *, images: int) -> Options:
    """The options with a value for each "auto", for a device that computes so many images at once.

    On GPUs, the choices are those that were the defaults before: no others have been measured.
    """
    if not isinstance(options, EncoderOptions | SwinOptions):
        return options
    device = mesh.devices.flat[0]
    options = zoo.runnable(options, platform=device.platform)
    if options.attention == "auto":
        streams = _in_streams(options, mesh)
        options = zoo.change(options, attention="streams" if streams else "recompute")
    remat, unroll = "dots", 1
    if isinstance(options, EncoderOptions):
        if device.platform == "cpu":
            remat = "lean"
        if device.platform == "tpu":
            remat, unroll = on_tpu(
                options, device.device_kind, images=images, fsdp=mesh.shape["fsdp"],
                parts=mesh.size // mesh.shape["data"],
            )  # fmt: skip
    changes: dict[str, Any] = {"remat": remat} if options.remat == "auto" else {}
    return zoo.change(options, **changes, **({} if options.unroll else {"unroll": unroll}))


def _in_streams(options: Options, mesh: Mesh) -> bool:
    """Whether the blocks keep the patches apart from the tokens before them.

    A TPU computes an array of 257 tokens as if they were 384. With `fsdp`, gradients of kernels
    would cross the devices twice.
    """
    if not isinstance(options, EncoderOptions) or mesh.devices.flat[0].platform != "tpu":
        return False
    patches = options.tokens - options.prefix_tokens
    fits = patches % attention.LANES == 0 and options.prefix_tokens <= FEW_TOKENS
    masked = options.decoder is not None  # its encoder gets a part of the patches
    return fits and options.streams_possible and not masked and mesh.shape["fsdp"] == 1


def described(options: Options) -> str:
    """The choices in one line for the log; "" for a model that has none."""
    if not isinstance(options, EncoderOptions | SwinOptions):
        return ""
    return f"attention {options.attention}, remat {options.remat}, unroll {options.unroll}"


def on_tpu(
    options: EncoderOptions, kind: str, *, images: int, fsdp: int = 1, parts: int = 1
) -> tuple[str, int]:
    """`remat` and `unroll` for a TPU of this `device_kind`, as far as the options leave them open.

    The first way that fits into the memory, from the fastest to the smallest. `parts` are the
    devices over which the parameters are split, `fsdp` of them along the axis of that name.
    """
    ways = [("dots", 1)] if kind in _WIDE_MEMORY else []
    ways += [("lean", 1), ("full", 1)]
    if options.depth <= UNROLLED_BLOCKS and fsdp == 1:
        ways.insert(0, ("none", options.depth))
    if options.remat != "auto":
        ways = [way for way in ways if way[0] == options.remat]
    if options.unroll:
        ways = [way for way in ways if way[1] == options.unroll]
    memory = _MEMORY.get(kind, math.inf)
    parameters = state.count(state.abstract_params(options)[1])
    room = SPARE * memory - STATE_BYTES * parameters / parts
    fits = (way for way in ways if _needed(options, way[0], images=images) <= room)
    return next(fits, ways[-1] if ways else ("lean", 1))


def _needed(options: EncoderOptions, remat: str, *, images: int) -> float:
    """Bytes of the activations: what all blocks keep, and everything of one block."""
    width, hidden = options.width, options.mlp_dim * (2 if options.mlp == "swiglu" else 1)
    everything = 8 * width + hidden + options.mlp_dim
    lean = 3 * width + hidden
    kept = {"none": everything, "dots": lean + 3 * width, "lean": lean, "full": width}[remat]
    bytes_each = jax.numpy.dtype(options.dtype).itemsize
    blocks = images * options.tokens * bytes_each * (options.depth * kept + everything)
    weights = images * options.num_heads * options.tokens**2 * (2 * 4 + bytes_each)
    return blocks + weights


def images_at_once(mesh: Mesh, batch_size: int, *, accumulate: int) -> int:
    """The images of a micro-batch on each device."""
    return batch_size // (mesh_lib.batch_parts(mesh) * accumulate)
