"""sessions.json: when, where and how each start of the command trained a run."""

import os
from typing import Any

from vit_jax import plain_json
from vit_jax.workdir import place

FILE = "sessions.json"  # in the workdir: {"sessions": [...]}, the oldest first

Session = dict[str, Any]  # `training/sessions.py` says what it holds


def read(workdir: str | os.PathLike[str]) -> list[Session]:
    """The sessions of a run, the oldest first; none if they are not recorded or are damaged."""
    path = place.folder(workdir) / FILE
    try:
        text = path.read_text() if place.is_file(path) else "{}"
        content = plain_json.loads(text, integer=plain_json.short_integer)
    except (OSError, ValueError):
        return []
    match content:
        case {"sessions": [*sessions]}:
            return [session for session in sessions if isinstance(session, dict)]
    return []
