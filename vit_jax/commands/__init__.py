"""The commands. Each file defines a command's arguments and `run`, whose docstring is its help."""

from types import ModuleType

from vit_jax.commands import (
    benchmark,
    config,
    convert,
    embed,
    evaluate,
    export,
    figures,
    label,
    models,
    plan,
    predict,
    report,
    train,
)

COMMANDS: dict[str, ModuleType] = {
    "train": train,
    "plan": plan,
    "benchmark": benchmark,
    "evaluate": evaluate,
    "predict": predict,
    "convert": convert,
    "export": export,
    "embed": embed,
    "label": label,
    "figures": figures,
    "report": report,
    "models": models,
    "config": config,
}
