"""The tensors of a PyTorch module that was saved whole, by their names in its state dict."""

from typing import Any

from vit_jax.checkpoints.torch_pickle import Module, Tensor

_PARTS = ("_parameters", "_buffers")
_LONGEST = 1000  # letters of a prefix: deeper nesting is made to fill the memory


def tensors(module: Module) -> dict[str, Tensor]:
    """Parameters and buffers by name, such as `blocks.input.w`.

    Raises ValueError if the modules are not a tree of reasonable depth: reading them might not end.
    """
    found: dict[str, Tensor] = {}
    seen = {id(module)}
    rest = [("", module)]
    while rest:
        prefix, one = rest.pop()
        for part in _PARTS:
            named = _dict(one, part).items()
            found |= {prefix + name: v for name, v in named if isinstance(v, Tensor)}
        for name, inner in _dict(one, "_modules").items():
            if inner is None:
                continue
            if not isinstance(inner, Module) or id(inner) in seen or len(prefix) > _LONGEST:
                raise ValueError(
                    "it holds a module that is used twice, nested too deeply or no module: save"
                    " its state_dict() as safetensors"
                )
            seen.add(id(inner))
            rest.append((f"{prefix}{name}.", inner))
    return found


def _dict(module: Module, part: str) -> dict[str, Any]:
    """A part of the attributes whose keys are names."""
    found = module.attributes.get(part, {})
    if not isinstance(found, dict) or not all(isinstance(name, str) for name in found):
        raise ValueError("its pickle is damaged: a module lacks its parts")
    return found
