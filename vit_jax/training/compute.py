"""The compute options that are "auto", chosen for the devices and the sizes of a run.

They change how fast a step is and what memory it needs, and its results by rounding only. A saved
model keeps "auto". The rules come from measurements on CPUs and from steps that were compiled for
TPUs: see docs/performance.md.
"""

import dataclasses
import functools
import math
from collections.abc import Sequence

import jax
from jax.sharding import Mesh

from vit_jax.models import attention_choice, zoo
from vit_jax.models.decoder import DecoderOptions
from vit_jax.models.options import EncoderOptions
from vit_jax.models.remat import Remat
from vit_jax.models.sharding import LANES
from vit_jax.models.swin import SwinOptions
from vit_jax.models.zoo import Options
from vit_jax.parallel import compiler
from vit_jax.parallel import mesh as mesh_lib
from vit_jax.parallel.chips import CHIPS
from vit_jax.training import state

STATE_BYTES = 16  # of a parameter: its value, its gradient and two moments, float32
FEW_TOKENS = 8  # before the patches, which are cheap in an array of their own
SPARE = 0.85  # share of the memory that the estimate may fill
SAVED = 0.08  # of the time of a run, if its blocks are unrolled
COMPILING = 30.0  # seconds on two cores at most to compile each block that is unrolled
MOST_UNROLLED = 32  # blocks; to compile them took 18 CPU-minutes and 10 GB of memory
LONGER = "about 8% longer (of a masked autoencoder 20%)"  # how long scanned steps take
USUAL = 0.4  # share of the peak of a chip, to guess how long a run takes
_MEMORY = {chip.kind: chip.memory for chip in CHIPS}
_PEAK = {chip.kind: chip.peak for chip in CHIPS}
_WIDE_MEMORY = ("TPU v5", "TPU7x")  # reading queries, keys and values is faster than a product


@dataclasses.dataclass(frozen=True, kw_only=True)
class Work:
    """What a device computes in a run, so that choices fit its memory and its time."""

    kind: str  # `device_kind`
    images: int  # at once
    steps: int = 0  # how often it computes that many
    encoded: float = 1.0  # share of the patches that the encoder gets
    parts: int = 1  # devices over which the parameters are split
    tensor: int = 1  # devices over which heads and hidden values are split


def check(options: Options, compiler_options: Sequence[str] = ()) -> None:
    """Raises ValueError if the compiler, with these options, would make a program that fails.

    XLA compiles equal calls of cuDNN once. It notes in the first one only that gradients must
    repeat in every bit, and then does not find the compiled program of the others.
    """
    if not isinstance(options, EncoderOptions | SwinOptions) or options.attention != "cudnn":
        return
    if options.unroll > 1 and compiler.deterministic_on_gpus(compiler_options):
        raise ValueError(
            f"config.model.attention 'cudnn' with config.model.unroll={options.unroll} fails in XLA"
            " where runs repeat in every bit: use --config.model.unroll=1, or start with"
            " XLA_FLAGS=--xla_gpu_deterministic_ops=false, and without this option in"
            " config.compiler_options"
        )


def choose(
    options: Options, mesh: Mesh, *, images: int, steps: int = 0, encoded: float = 1.0
) -> Options:
    """The options with a value for each "auto", for a device that computes so many images at once.

    `steps` is how often it does that in the run, and `encoded` the share of the patches that the
    encoder gets. Of GPUs, one H100 was measured (docs/gpu.md).
    """
    if not isinstance(options, EncoderOptions | SwinOptions):
        return options
    device = mesh.devices.flat[0]
    options = attention_choice.runnable(options, platform=device.platform)
    if options.attention == "auto":
        streams = _in_streams(options, mesh)
        options = zoo.change(options, attention="streams" if streams else "recompute")
    unroll, remat = options.unroll, options.remat
    if remat == "auto" and isinstance(options, EncoderOptions) and device.platform == "tpu":
        work = Work(
            kind=device.device_kind,
            images=images,
            steps=steps,
            encoded=encoded,
            parts=mesh.size // mesh.shape["data"],
            tensor=mesh.shape["tensor"],
        )
        if not unroll and unrolls(options, work):
            unroll, remat = _blocks(options), "none"
        else:
            remat = on_tpu(options, work)
    elif remat == "auto":
        lean = isinstance(options, EncoderOptions) and device.platform == "cpu"
        remat = "lean" if lean else "dots"
    return zoo.change(options, remat=remat, unroll=unroll or 1)


def unrolls(options: EncoderOptions, work: Work) -> bool:
    """Whether a TPU unrolls all blocks, and computes nothing again.

    Its steps take 0.81 to 0.98 times as long, if that fits into the memory. But they take minutes
    to compile, so the run must be long enough.
    """
    if work.kind not in _PEAK or options.attention not in ("recompute", "streams"):
        return False
    if _blocks(options) > MOST_UNROLLED or options.dropout:  # which takes minutes for each block
        return False
    if not _fits(options, "none", work):
        return False
    flops = _flops(options, work) * work.images * work.steps / work.tensor
    return SAVED * flops / (USUAL * _PEAK[work.kind]) > compiling(_blocks(options))


def compiling(blocks: int) -> float:
    """Seconds on two cores at most to compile so many unrolled blocks; 0 for 1: a scan."""
    return COMPILING * blocks if blocks > 1 else 0.0


def _blocks(options: EncoderOptions) -> int:
    """Blocks of the encoder and the decoder."""
    return options.depth + (options.decoder.depth if options.decoder else 0)


def _in_streams(options: Options, mesh: Mesh) -> bool:
    """Whether the blocks keep the patches apart from the tokens before them.

    A TPU computes an array of 257 tokens as if they were 384. With `fsdp`, gradients of kernels
    would cross the devices twice.
    """
    if not isinstance(options, EncoderOptions) or mesh.devices.flat[0].platform != "tpu":
        return False
    patches = options.tokens - options.prefix_tokens
    fits = patches % LANES == 0 and options.prefix_tokens <= FEW_TOKENS
    masked = options.decoder is not None  # its encoder gets a part of the patches
    return fits and options.streams_possible and not masked and mesh.shape["fsdp"] == 1


def described(options: Options) -> str:
    """The choices in one line for the log; "" for a model that has none."""
    if not isinstance(options, EncoderOptions | SwinOptions):
        return ""
    return f"attention {options.attention}, remat {options.remat}, unroll {options.unroll}"


def note(options: Options) -> str:
    """What a user on TPUs should know of unrolled blocks; "" if there are none."""
    unroll = getattr(options, "unroll", 1)
    if not (minutes := compiling(unroll) / 60):
        return ""
    return (
        f"note: {unroll} unrolled blocks take up to {minutes:.0f} minutes to compile on two cores,"
        " unless the cache of programs has them; with --config.model.unroll=1 it is a"
        f" minute or two, and a step takes {LONGER}"
    )


def on_tpu(options: EncoderOptions, work: Work) -> Remat:
    """`remat` for a TPU: the fastest that fits into the memory."""
    ways: list[Remat] = ["dots"] if work.kind in _WIDE_MEMORY else []
    ways += ["lean", "full"]
    return next((way for way in ways if _fits(options, way, work)), "full")


def _fits(options: EncoderOptions, remat: Remat, work: Work) -> bool:
    """Whether the state and the activations are expected to fit into the memory of a device."""
    held = STATE_BYTES * _parameters(options) / work.parts
    needed = held + _needed(options, remat, work)
    return needed <= SPARE * _MEMORY.get(work.kind, math.inf)


@functools.cache
def _parameters(options: EncoderOptions) -> int:
    return state.count(state.abstract_params(options)[1])


def _flops(options: EncoderOptions, work: Work) -> float:
    """About the FLOPs of a training step for an image: 6 for every parameter and token."""
    decoding = 0
    if decoder := options.decoder:
        decoding = decoder.depth * decoder.width * (4 * decoder.width + 2 * decoder.mlp_dim)
    encoding = work.encoded * (_parameters(options) - decoding)
    return 6 * (encoding + decoding) * options.tokens


def _needed(options: EncoderOptions, remat: Remat, work: Work) -> float:
    """Bytes of the activations: what all blocks keep, and everything of one block."""
    each = jax.numpy.dtype(options.dtype).itemsize
    stacks: list[tuple[EncoderOptions | DecoderOptions, float]] = [(options, work.encoded)]
    if options.decoder:
        stacks.append((options.decoder, 1.0))
    kept, most = 0.0, 0.0
    for stack, share in stacks:
        tokens = math.ceil(share * options.tokens)  # of an image
        kept += tokens * each * stack.depth * _kept(stack, remat, work)
        most = max(most, tokens * _of_a_token(stack, work, tokens=tokens, each=each))
    return work.images * (kept + most)


def _kept(stack: EncoderOptions | DecoderOptions, remat: Remat, work: Work) -> float:
    """How many numbers a block of the encoder or the decoder keeps for each token."""
    width, hidden = stack.width, _hidden(stack)
    whole, split = {
        # B/16 keeps 4 widths less; norms of queries and keys and scales of branches keep more.
        "none": (9 * width, 4 * width + hidden),
        "dots": (2 * width, 4 * width + hidden),
        "lean": (2 * width, width + hidden),
        "full": (width, 0),
    }[remat]
    return whole + split / work.tensor


def _of_a_token(
    stack: EncoderOptions | DecoderOptions, work: Work, *, tokens: int, each: int
) -> float:
    """Bytes of all that a block computes of one token, with the attention to all of them."""
    numbers = 3 * stack.width + (5 * stack.width + _hidden(stack) + stack.mlp_dim) / work.tensor
    return numbers * each + stack.num_heads / work.tensor * tokens * (2 * 4 + each)


def _hidden(stack: EncoderOptions | DecoderOptions) -> int:
    """How many numbers of a token the first dense layer of the MLP gives."""
    return stack.mlp_dim * (2 if getattr(stack, "mlp", "plain") == "swiglu" else 1)


def images_at_once(mesh: Mesh, batch_size: int, *, accumulate: int) -> int:
    """The images of a micro-batch on each device."""
    return batch_size // (mesh_lib.batch_parts(mesh) * accumulate)
