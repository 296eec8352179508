"""The tensors of a PyTorch module that was saved whole, by their names in its state dict."""

from typing import Any

from vit_jax.checkpoints.torch_pickle import Module, Tensor

_PARTS = ("_parameters", "_buffers")
_LONGEST = 1000  # letters of a prefix: longer ones are made to fill the memory


def tensors(module: Module) -> dict[str, Tensor]:
    """Parameters and buffers by name, such as `blocks.input.w`.

    Raises ValueError if the modules are not a tree of reasonable depth: reading them might not end.
    """
    found: dict[str, Tensor] = {}
    seen: set[int] = {id(module)}  # ids of modules and of their parts
    rest = [("", module)]
    while rest:
        prefix, one = rest.pop()
        for part in _PARTS:
            named = _dict(one, part, seen).items()
            found |= {prefix + name: v for name, v in named if isinstance(v, Tensor)}
        for name, inner in _dict(one, "_modules", seen).items():
            if inner is None:
                continue
            if not isinstance(inner, Module) or len(prefix) + len(name) > _LONGEST:
                raise ValueError(f"it holds a module nested too deeply or no module: {_ADVICE}")
            _see(inner, seen)
            rest.append((f"{prefix}{name}.", inner))
    return found


_ADVICE = "save its state_dict() as safetensors"


def _dict(module: Module, part: str, seen: set[int]) -> dict[str, Any]:
    """A part of the attributes whose keys are names. Raises ValueError if it was seen before."""
    found = module.attributes.get(part, {})
    if not isinstance(found, dict):
        raise ValueError(_DAMAGED)
    if found:
        _see(found, seen)
    if not all(isinstance(name, str) for name in found):
        raise ValueError(_DAMAGED)
    return found


_DAMAGED = "its pickle is damaged: a module lacks its parts"


def _see(value: object, seen: set[int]) -> None:
    """Adds to `seen`. Raises ValueError for a value that is there: it would be read repeatedly."""
    if id(value) in seen:
        raise ValueError(f"it holds a module, or a part of one, that is used twice: {_ADVICE}")
    seen.add(id(value))
