"""Files from outside: read without pickle, refused with one clear line."""

import pathlib
import zipfile
import zlib

import numpy as np


def read_npz(path: pathlib.Path) -> dict[str, np.ndarray]:
    """All arrays of an .npz file. Raises ValueError where it is missing, damaged or no .npz."""
    if not path.is_file():
        raise ValueError(f"no checkpoint at {path}")
    if not zipfile.is_zipfile(path):
        raise ValueError(f"{path} is no .npz checkpoint: it is not a zip archive")
    try:
        # Opened here: NumPy leaves its own file open where it finds damage.
        with path.open("rb") as raw, np.load(raw, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except _DAMAGED as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(f"{path} is no readable .npz checkpoint: {reason}") from error


# What NumPy and zipfile raise at damaged bytes: MemoryError at a header that claims too much.
_DAMAGED = (
    zipfile.BadZipFile,
    zlib.error,
    EOFError,
    OSError,
    ValueError,
    RuntimeError,
    MemoryError,
)
