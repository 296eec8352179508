"""Makes Orbax save and restore checkpoints at s3://, through TensorStore.

Orbax passes gs:// and local paths to TensorStore and refuses other paths; its pull request for
s3:// is open. Until it is merged, this module replaces the five functions of Orbax that handle
gs:// by ones that handle s3:// too. As at gs://, a marker file commits a checkpoint, because a
folder in a bucket cannot be renamed atomically.
"""

import functools
import os
from collections.abc import Callable
from typing import Any

from etils import epath, epy

from vit_jax.workdir import place

with epy.lazy_imports():  # slow to import, and needed for s3:// only
    from orbax.checkpoint._src.path import atomicity, atomicity_defaults, gcs_utils
    from orbax.checkpoint._src.serialization import tensorstore_utils


def is_s3(path: str | os.PathLike[str]) -> bool:
    return os.fspath(path).startswith("s3://")


def folder(workdir: str | os.PathLike[str]) -> epath.Path:
    """The folder of a run, as from `place.folder`; prepares Orbax if it is at s3://."""
    if is_s3(workdir):
        teach_orbax()
    return place.folder(workdir)


@functools.cache
def teach_orbax() -> None:
    """Makes Orbax read and write s3://. Raises ValueError for an incompatible Orbax version."""
    replaced: list[tuple[Any, str, Callable[[Any], Any]]] = [
        (tensorstore_utils, "_use_gcs_driver", _has_driver),
        (tensorstore_utils, "_normalize_path", _normalize_path),
        (gcs_utils, "get_kvstore_for_gcs", _kvstore),
        (atomicity_defaults, "get_default_temporary_path_class", _committed_by_file),
        (atomicity_defaults, "get_item_default_temporary_path_class", _committed_by_file),
    ]
    for module, name, replacement in replaced:
        original = getattr(module, name, None)
        if original is None:
            raise ValueError(
                f"this version of Orbax cannot write to s3:// (it has no {module.__name__}.{name}):"
                " pip install 'orbax-checkpoint>=0.12,<0.13'"
            )
        setattr(module, name, _for_s3(replacement, original))


def _for_s3(replacement: Callable[[Any], Any], original: Callable[..., Any]) -> Callable[..., Any]:
    """A function that calls `replacement` for a path at s3://, and `original` for others."""

    @functools.wraps(original)
    def choose(path: Any, *args: Any, **options: Any) -> Any:
        return replacement(path) if is_s3(path) else original(path, *args, **options)

    return choose


def _has_driver(path: str) -> bool:
    del path
    return True


def _normalize_path(path: str) -> str:
    return "s3://" + os.path.normpath(path.removeprefix("s3://"))


def _committed_by_file(path: epath.Path) -> "type[atomicity.CommitFileTemporaryPath]":
    del path
    return atomicity.CommitFileTemporaryPath


def _kvstore(path: str) -> dict[str, Any]:
    """TensorStore's spec for a path, with the server and region of the package's other files."""
    bucket, _, key = path.removeprefix("s3://").partition("/")
    return {"driver": "s3", "bucket": bucket, "path": key} | _server()


@functools.cache
def _server() -> dict[str, Any]:
    files = place.file_system("s3")
    files.connect()
    client = files.s3.meta
    found: dict[str, Any] = {}
    if client.region_name and client.region_name != "aws-global":
        found["aws_region"] = client.region_name
    if "amazonaws.com" not in client.endpoint_url:  # another server, such as MinIO
        found["endpoint"] = client.endpoint_url
        found.setdefault("aws_region", "us-east-1")
    if os.environ.get("AWS_ACCESS_KEY_ID"):  # otherwise TensorStore searches for credentials
        found["aws_credentials"] = {"type": "environment"}
    return found
