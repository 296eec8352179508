"""What the peers in PyTorch share: weights, images, the norm of the gradient, given draws."""

import contextlib
import unittest.mock
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch  # type: ignore[import-not-found]

from benchmarks.twins import wire

torch.set_num_threads(1)


def timm_sizes(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The sizes as timm's VisionTransformer, and those that derive from it, call them."""
    return {
        "img_size": settings["image_size"],
        "patch_size": settings["patch_size"],
        "num_classes": settings["classes"],
        "embed_dim": settings["width"],
        "depth": settings["depth"],
        "num_heads": settings["heads"],
        "mlp_ratio": settings["mlp_dim"] / settings["width"],
    }


def load(model: Any, params: wire.Arrays) -> None:
    """Sets every parameter, but no buffers. Raises RuntimeError if a shape does not fit."""
    arrays = {name: torch.from_numpy(a.copy()) for name, a in params.items()}
    missing, unexpected = model.load_state_dict(arrays, strict=False)
    wrong = [*unexpected, *({name for name, _ in model.named_parameters()} & {*missing})]
    if wrong:
        raise RuntimeError(f"these parameters do not fit the peer's model: {', '.join(wrong)}")


def params(model: Any) -> dict[str, np.ndarray]:
    return {name: p.detach().numpy() for name, p in model.named_parameters()}


def images(pixels: np.ndarray, settings: Mapping[str, Any]) -> Any:
    """uint8 (B, H, W, C) as normalised floats (B, C, H, W), as torchvision prepares them."""
    values = torch.from_numpy(pixels).permute(0, 3, 1, 2).float().div(255)
    mean, std = (torch.tensor(settings[name]).view(1, -1, 1, 1) for name in ("mean", "std"))
    return values.sub(mean).div(std)


def grad_norm(model: Any) -> float:
    grads = [p.grad for p in model.parameters() if p.grad is not None]
    return torch.nn.utils.get_total_norm(grads).item()


@contextlib.contextmanager
def bernoulli(draws: Iterator[np.ndarray]) -> Iterator[None]:
    """Gives the code inside these draws, in order, for every `tensor.bernoulli_(p)`."""

    def bernoulli_(tensor: Any, *_: Any, **__: Any) -> Any:
        draw = torch.from_numpy(next(draws)).to(tensor.dtype)
        return tensor.copy_(draw.view(tensor.shape))

    with unittest.mock.patch.object(torch.Tensor, "bernoulli_", bernoulli_):
        yield
    assert next(draws, None) is None, "the peer used fewer draws than this project"


@contextlib.contextmanager
def rand(draw: np.ndarray) -> Iterator[None]:
    """Gives the code inside this draw for its one call of `torch.rand`."""
    with unittest.mock.patch.object(
        torch, "rand", side_effect=[torch.from_numpy(draw)]
    ) as function:
        yield
    assert function.call_count == 1
