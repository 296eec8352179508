"""Released models of the Hugging Face hub: `hf:OWNER/NAME`, with `@REVISION` or `/FILE` behind it.

They are downloaded once, into the cache of huggingface_hub, whose environment variables apply:
HF_ENDPOINT, HF_HUB_CACHE, HF_HUB_OFFLINE, HF_TOKEN.
"""

import dataclasses
import logging
import os
import pathlib
import re
from typing import Any

from vit_jax import plain_json

PREFIX = "hf:"
_NAME = re.compile(r"hf:(\w[\w.-]*/\w[\w.-]*)((?:/\w[\w.-]*)+)?(?:@(\w[\w./-]*))?")
# The files of weights, the preferred one first; an index lists the parts of a large model.
_WEIGHTS = (
    *("model.safetensors", "model.safetensors.index.json"),
    *("pytorch_model.bin", "pytorch_model.bin.index.json"),
    *("flax_model.msgpack", "flax_model.msgpack.index.json"),
)
_BESIDE = ("config.json", "preprocessor_config.json")


def is_hub(path: str | os.PathLike[str]) -> bool:
    """Whether a path is the name of a model of the hub."""
    return isinstance(path, str) and path.startswith(PREFIX)


def local(path: str) -> pathlib.Path:
    """The local copy of a model: a folder, or the file that is named.

    The files that describe it are beside it; one that cannot be had is noted in the log. Raises
    ValueError in one line if there is no such model, or the hub cannot be reached and the model is
    not in the cache.
    """
    if not (match := _NAME.fullmatch(path)):
        raise ValueError(f"{path} is no model of the hub: write {PREFIX}OWNER/NAME")
    name, file, revision = match.groups()
    file = (file or "").removeprefix("/")
    repository = _Repository(path=path, name=name, revision=revision)
    found = repository.first((file,) if file else _WEIGHTS)
    folder, slash, _ = file.rpartition("/")
    prefix = folder + slash
    if found.name.endswith(".index.json"):
        for part in _parts(found):
            repository.get(f"{prefix}{part}")
    for other in _BESIDE:
        if repository.get(f"{prefix}{other}") is None and repository.may_have(f"{prefix}{other}"):
            logging.getLogger(__name__).warning(
                "%s: the hub cannot be reached, and %s is not in the cache: read without it",
                path,
                other,
            )
    return found if file else found.parent


@dataclasses.dataclass(kw_only=True)
class _Repository:
    """A model of the hub."""

    path: str  # as the user wrote it
    name: str
    revision: str | None
    offline: bool = False  # the hub could not be reached: only the cache is asked

    def first(self, files: tuple[str, ...]) -> pathlib.Path:
        """The first file that the model has. Raises ValueError if it has none."""
        for name in files:
            if found := self.get(name):
                return found
        if self.offline:
            place = os.environ.get("HF_ENDPOINT") or "https://huggingface.co"
            raise ValueError(
                f"{self.path} is not in the cache, and the hub at {place} cannot be reached:"
                " download it where the hub can be reached, and give the folder"
            )
        raise ValueError(f"{self.path}: the model has no {' or '.join(files)}")

    def get(self, file: str) -> pathlib.Path | None:
        """A file, downloaded if it is not in the cache; None if the model does not have it."""
        hub, errors = _library(self.path)
        try:
            found = hub.hf_hub_download(
                self.name,
                file,
                revision=self.revision,
                # These are read here, so that a program may set them after its imports.
                endpoint=os.environ.get("HF_ENDPOINT") or None,
                cache_dir=os.environ.get("HF_HUB_CACHE") or None,
                local_files_only=self.offline,
            )
        except errors.LocalEntryNotFoundError:
            self.offline = True
            return None
        except errors.EntryNotFoundError:
            return None
        except (*_of_http(errors), errors.HFValidationError, OSError) as error:
            reason = " ".join(str(error).split())[:200] or type(error).__name__
            raise ValueError(f"{self.path} cannot be downloaded: {reason}") from error
        return pathlib.Path(found)

    def may_have(self, file: str) -> bool:
        """Whether the model may have a file that is not in the cache: the hub was not asked."""
        hub, _ = _library(self.path)
        known = hub.try_to_load_from_cache(
            self.name,
            file,
            revision=self.revision,
            cache_dir=os.environ.get("HF_HUB_CACHE") or None,
        )
        return self.offline and known is None


def _of_http(errors: Any) -> tuple[type[Exception], ...]:
    """The errors of the library by which huggingface_hub makes its requests.

    It is requests, httpx or httpx2, by the version. A connection that drops is such an error.
    """
    found: tuple[type[Exception], ...] = errors.HfHubHTTPError.__bases__
    return found


def _library(path: str) -> tuple[Any, Any]:
    """The library and its errors. Raises ValueError if it is not installed."""
    try:
        import huggingface_hub  # slow to import
        import huggingface_hub.errors
    except ImportError as error:
        raise ValueError(
            f"{path} needs huggingface_hub, which is not installed: pip install vit_jax[hub]"
        ) from error
    # It logs each of its attempts; an error is one line in the end.
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
    return huggingface_hub, huggingface_hub.errors


def _parts(index: pathlib.Path) -> list[str]:
    """The files that an index names. Raises ValueError if it is damaged."""
    try:
        parts = set(plain_json.loads(index.read_text())["weight_map"].values())
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{index} is damaged: {error}") from error
    for part in parts:
        if not isinstance(part, str):
            raise ValueError(f"{index} is damaged: it names the file {part!r}, which is no text")
    return sorted(parts)
