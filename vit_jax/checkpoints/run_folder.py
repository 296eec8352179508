"""The folder of a run: its config, its model card, and other files beside its checkpoints.

config.json   the resolved config                  (training/run_config.py)
model.json    options, class names, preprocessing  (card.py)
data.json     the identity of the data             (training/datasets.py)
checkpoints/  one folder per step                  (store.py)
"""

import contextlib
import json
import logging
import os
from collections.abc import Iterator, Mapping
from typing import Any

from etils import epath

from vit_jax import plain_json
from vit_jax.checkpoints import block_order, s3
from vit_jax.checkpoints import card as card_lib
from vit_jax.checkpoints.card import Card as Card
from vit_jax.models.model import TrainedWith
from vit_jax.schema import build
from vit_jax.text import printable
from vit_jax.workdir import place

CONFIG = "config.json"


def write_run(workdir: str | os.PathLike[str], config: Mapping[str, Any], card: Card) -> None:
    """Writes config.json and model.json, each as a whole or not at all.

    Raises ValueError where `workdir` cannot be written to.
    """
    with _writing(workdir):
        s3.folder(workdir).mkdir(parents=True, exist_ok=True)
    write_card(workdir, card)
    write_json(workdir, CONFIG, config)


def write_card(workdir: str | os.PathLike[str], card: Card) -> None:
    """Writes model.json. Raises ValueError where `workdir` cannot be written to."""
    write_json(workdir, "model.json", card_lib.to_json(card))


def write_json(workdir: str | os.PathLike[str], name: str, content: Mapping[str, Any]) -> None:
    """Writes a JSON file into the folder of a run. Raises ValueError as `write_text`."""
    write_text(workdir, name, json.dumps(content, indent=2) + "\n")


def write_text(workdir: str | os.PathLike[str], name: str, text: str) -> None:
    """Writes a file into the folder of a run, as a whole or not at all.

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


def read_json(workdir: str | os.PathLike[str], name: str) -> Any:
    """The content of a JSON file in the folder of a run; None where there is no such file.

    Raises ValueError where the file is damaged.
    """
    return _read(workdir, name) if (s3.folder(workdir) / name).exists() else None


def read_card(workdir: str | os.PathLike[str]) -> Card:
    """The card of a run. Raises ValueError where it is missing, damaged or contradicts itself."""
    card, order = read_old_card(workdir)
    if order == "name":
        raise ValueError(
            f"{workdir} was trained by an earlier version of vit_jax, which ran the blocks of a"
            f" stage in another order: `vit_jax convert {workdir} NEW` writes a run NEW with the"
            " blocks in that order, to evaluate or to start from"
        )
    return card


def read_old_card(workdir: str | os.PathLike[str]) -> tuple[Card, block_order.Order]:
    """The card of a run or an exported model, and the order of its blocks when it was trained.

    Raises ValueError where it is missing, damaged or contradicts itself.
    """
    content = _read(workdir, "model.json")
    old = isinstance(content, Mapping) and "format" not in content
    config = _read(workdir, CONFIG) if old else {}
    fields = config if isinstance(config, Mapping) else {}
    card = card_lib.from_json(content, config=fields, path=f"{workdir}/model.json")
    if not block_order.matters(card.options):
        return card, "number"
    return card, block_order.of_trained(content, read_json(workdir, CONFIG))


def cross_entropy_of_config(workdir: str | os.PathLike[str]) -> TrainedWith:
    """What a run was trained with, which earlier versions recorded in its config alone.

    "" where the config does not say it, or, with a warning, where it cannot be read: the model is
    used without its config.
    """
    try:
        fields = read_json(workdir, CONFIG)
        objective = fields.get("objective") if isinstance(fields, Mapping) else None
        if not isinstance(objective, Mapping):
            return ""
        found = objective.get("cross_entropy", objective.get("loss", ""))
        return build(TrainedWith, found, "config.objective.cross_entropy")
    except ValueError as error:
        warn_of_softmax(workdir, str(error))
        return ""


def warn_of_softmax(workdir: str | os.PathLike[str], reason: str) -> None:
    """Logs that nothing says what a model was trained with."""
    message = printable(f"{workdir}: probabilities are assumed to be a softmax: {reason}")
    logging.getLogger(__name__).warning(message)


def renew_card(workdir: str | os.PathLike[str]) -> None:
    """Rewrites a model.json of an older format in the current one."""
    card = read_card(workdir)
    if read_json(workdir, "model.json").get("format") != card_lib.format_of(card):
        write_card(workdir, card)


def read_fields(workdir: str | os.PathLike[str]) -> dict[str, Any]:
    """The fields of config.json. Raises ValueError where the file is missing or damaged."""
    fields = _read(workdir, CONFIG)
    if not isinstance(fields, dict):
        kind = type(fields).__name__
        raise ValueError(f"{workdir}/{CONFIG} is damaged: it must hold an object, got {kind}")
    return fields


def _read(workdir: str | os.PathLike[str], name: str) -> Any:
    path = s3.folder(workdir) / name
    if not exists(path):
        raise ValueError(f"{workdir} is not a run: it has no {name}")
    try:
        if not place.is_file(path):
            raise OSError("it is not a file")
        return plain_json.loads(path.read_text())
    except OSError as error:
        raise ValueError(f"cannot read {path}: {error.strerror or error}") from error
    except ValueError as error:
        raise ValueError(f"{path} is damaged: {error}: restore it, or start anew") from error


def is_run(path: str | os.PathLike[str]) -> bool:
    """Whether `path` is the folder of a run."""
    return exists(s3.folder(path) / "model.json")


def exists(path: epath.Path) -> bool:
    """Whether a path exists; False for an invalid path."""
    try:
        return path.exists()
    except (OSError, ValueError):
        return False
