"""The folder of a run: its config, its model card, and what else is kept beside its checkpoints.

config.json   the resolved config       model.json    options, class names, preprocessing
data.json     what the splits hold      (training/datasets.py)
checkpoints/  one folder a step         (store.py)
"""

import contextlib
import dataclasses
import json
import os
from collections.abc import Iterator, Mapping
from typing import Any

from etils import epath

from vit_jax import config as config_lib
from vit_jax import plain_json
from vit_jax.checkpoints import s3
from vit_jax.config import Config
from vit_jax.models.interpolation import Methods
from vit_jax.models.preprocessing import Preprocessing
from vit_jax.models.zoo import Options
from vit_jax.workdir import place

# What may differ when a run is resumed: nothing that changes its result.
RUN_OPTIONS = (
    *("mesh", "evaluate_every", "eval_batch_size", "log_every", "checkpoint", "init_from"),
    *("init_state", "total"),  # `training.length` says what another length does
    *("data.threads", "data.prefetch", "data.max_bad", "data.path", "data.accept_changes"),
    *("model.remat", "model.unroll", "model.attention"),
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Card:
    """What is needed to use a run's model without its training config."""

    options: Options
    class_names: tuple[str, ...]
    preprocessing: Preprocessing
    resize: Methods = Methods()  # of the family that it started from


def write_run(workdir: str | os.PathLike[str], config: Config, card: Card) -> None:
    """Writes config.json and model.json, each whole or not at all.

    Raises ValueError where `workdir` cannot be written to.
    """
    with _writing(workdir):
        s3.folder(workdir).mkdir(parents=True, exist_ok=True)
    write_card(workdir, card)
    write_config(workdir, config)


def write_card(workdir: str | os.PathLike[str], card: Card) -> None:
    """Writes model.json anew. Raises ValueError where `workdir` cannot be written to."""
    write_json(workdir, "model.json", dataclasses.asdict(card))


def write_json(workdir: str | os.PathLike[str], name: str, content: Mapping[str, Any]) -> None:
    """Writes a file of JSON into the folder of a run as `write_text` does."""
    write_text(workdir, name, json.dumps(content, indent=2) + "\n")


def write_text(workdir: str | os.PathLike[str], name: str, text: str) -> None:
    """Writes a file into the folder of a run, whole or not at all.

    Raises ValueError where `workdir` cannot be written to.
    """
    with _writing(workdir):
        place.write_whole(s3.folder(workdir) / name, text.encode())


@contextlib.contextmanager
def _writing(workdir: str | os.PathLike[str]) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ValueError(f"cannot write to the workdir {workdir}: {error}") from error


def write_config(workdir: str | os.PathLike[str], config: Config) -> None:
    """Writes config.json anew. Raises ValueError where `workdir` cannot be written to."""
    write_text(workdir, "config.json", config_lib.to_json(config))


def read_json(workdir: str | os.PathLike[str], name: str) -> Any:
    """What such a file holds; None where there is none. Raises ValueError where it is damaged."""
    return _read(workdir, name) if (s3.folder(workdir) / name).exists() else None


def read_card(workdir: str | os.PathLike[str]) -> Card:
    """The model of a run. Raises ValueError where there is none, or it contradicts itself."""
    card = config_lib.build(Card, _read(workdir, "model.json"), f"{workdir}/model.json")
    expects, damaged = card.preprocessing, f"{workdir}/model.json is damaged"
    classes, names = card.options.num_classes, len(card.class_names)
    if names not in (0, classes):
        raise ValueError(f"{damaged}: it names {names} of the model's {classes} classes")
    if expects.image_size != card.options.image_size:
        raise ValueError(
            f"{damaged}: its images are of {expects.image_size}, its model is for"
            f" {card.options.image_size}"
        )
    if not len(expects.mean) == len(expects.std) == card.options.channels:
        raise ValueError(
            f"{damaged}: it has mean {expects.mean} and std {expects.std} for"
            f" {card.options.channels} channels"
        )
    return card


def read_config(workdir: str | os.PathLike[str]) -> Config:
    """The config of a run. Raises ValueError where there is none, or it is damaged."""
    fields = _read(workdir, "config.json")
    try:
        return config_lib.resolve(fields)
    except ValueError as error:
        raise ValueError(f"{workdir}/config.json: {error}") from error


def check_same_run(workdir: str | os.PathLike[str], config: Config) -> None:
    """Raises ValueError if `workdir` holds a run of another config, naming what differs."""
    if not exists(s3.folder(workdir) / "config.json"):
        return
    if differing := _differing(read_config(workdir), config):
        raise ValueError(
            f"{workdir} holds a run of another config ({'; '.join(differing)}):"
            " use another --workdir, or the same config to resume"
        )


def replaced_run(workdir: str | os.PathLike[str], config: Config) -> str:
    """In words, which run without any checkpoint a new one replaces; "" where there is none."""
    if not exists(s3.folder(workdir) / "config.json"):
        return ""
    try:
        other = _differing(read_config(workdir), config)
    except ValueError:
        other = ["its config.json is damaged"]
    change = f", with another config ({'; '.join(other)})" if other else ""
    return f"note: {workdir} holds a run that saved nothing: it starts anew{change}"


def _differing(there: Config, here: Config) -> list[str]:
    """The fields that change the result, where their values differ."""
    old, new = (flat(dataclasses.asdict(config)) for config in (there, here))
    return [
        f"{path} is {old[path]!r} there and {new[path]!r} here"
        for path in old
        if old[path] != new[path]
        and not any(path == o or path.startswith(o + ".") for o in RUN_OPTIONS)
    ]


def _read(workdir: str | os.PathLike[str], name: str) -> Any:
    path = s3.folder(workdir) / name
    if not exists(path):
        raise ValueError(f"{workdir} is no run: it has no {name}")
    try:
        return plain_json.loads(path.read_text())
    except OSError as error:
        raise ValueError(f"cannot read {path}: {error.strerror or error}") from error
    except ValueError as error:
        raise ValueError(f"{path} is damaged: {error}: restore it, or start anew") from error


def flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested fields by their path, such as `data.path`."""
    found: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping):
            found.update(flat(value, f"{prefix}{key}."))
        else:
            found[prefix + key] = value
    return found


def is_run(path: str | os.PathLike[str]) -> bool:
    """Whether `path` is the folder of a run of ours."""
    return exists(s3.folder(path) / "model.json")


def exists(path: epath.Path) -> bool:
    """Whether it is there; a path that no file can have is not."""
    try:
        return path.exists()
    except (OSError, ValueError):
        return False
