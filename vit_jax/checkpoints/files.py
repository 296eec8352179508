"""Files from outside: read without pickle, refused with one clear line."""

import pathlib
import zipfile

import numpy as np


def read_npz(path: pathlib.Path) -> dict[str, np.ndarray]:
    """All arrays of an .npz file. Raises ValueError where it is missing, damaged or no .npz."""
    if not path.is_file():
        raise ValueError(f"no checkpoint at {path}")
    try:
        with np.load(path, allow_pickle=False) as file:
            if not isinstance(file, np.lib.npyio.NpzFile):
                raise ValueError(f"{path} holds one bare array: it is no .npz checkpoint")
            return {name: file[name] for name in file.files}
    except (zipfile.BadZipFile, EOFError, OSError, ValueError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(f"{path} is no readable .npz checkpoint: {reason}") from error
