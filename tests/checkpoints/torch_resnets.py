"""Arrays of small ResNets with the names of timm and torchvision, drawn from a seed."""

import numpy as np

SIZES = {  # name: blocks of each stage, bottleneck, width, side of the first kernel
    "basic": ((1, 2), False, 8, 7),
    "bottleneck": ((1, 1), True, 8, 7),
    "cifar": ((1, 1), False, 8, 3),
    "deep": ((1, 11), False, 4, 3),  # ten blocks and more in a stage
}
CLASSES = 5


def arrays(name: str) -> dict[str, np.ndarray]:
    """The state of one of `SIZES`, float32 by name, as PyTorch's `state_dict` has it."""
    depths, bottleneck, width, side = SIZES[name]
    rng, out = np.random.default_rng(3), {}

    def conv(kernel: str, norm: str, side: int, inputs: int, outputs: int) -> None:
        scale = np.sqrt(2 / (side * side * inputs))
        out[f"{kernel}.weight"] = scale * rng.standard_normal((outputs, inputs, side, side))
        for leaf, low, high in (
            *(("weight", 0.5, 1.5), ("bias", -0.2, 0.2)),
            *(("running_mean", -0.2, 0.2), ("running_var", 0.5, 1.5)),
        ):
            out[f"{norm}.{leaf}"] = rng.uniform(low, high, outputs)
        out[f"{norm}.num_batches_tracked"] = np.asarray(7, np.int64)

    conv("conv1", "bn1", side, 3, width)
    before = width
    for stage, depth in enumerate(depths):
        inner = width * 2**stage
        outputs = inner * (4 if bottleneck else 1)
        for block in range(depth):
            path = f"layer{stage + 1}.{block}"
            three = [(1, before, inner), (3, inner, inner), (1, inner, outputs)]
            two = [(3, before, inner), (3, inner, inner)]
            for i, shape in enumerate(three if bottleneck else two, 1):
                conv(f"{path}.conv{i}", f"{path}.bn{i}", *shape)
            if before != outputs or (stage and not block):
                conv(f"{path}.downsample.0", f"{path}.downsample.1", 1, before, outputs)
            before = outputs
    out["fc.weight"] = rng.standard_normal((CLASSES, before)) / np.sqrt(before)
    out["fc.bias"] = rng.standard_normal(CLASSES)
    floats = {name: array for name, array in out.items() if not name.endswith("tracked")}
    return out | {name: array.astype(np.float32) for name, array in floats.items()}


def pixels() -> np.ndarray:
    """uint8 (4, 32, 32, 3)."""
    return np.random.default_rng(4).integers(0, 256, (4, 32, 32, 3), dtype=np.uint8)


def images() -> np.ndarray:
    """The pixels in [-1, 1], float32."""
    return pixels().astype(np.float32) / 127.5 - 1
