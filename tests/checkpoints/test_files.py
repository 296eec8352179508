"""Files from outside are read without running anything, and refused in one line."""

import io
import os
import pathlib
import pickle
import zipfile
from typing import Any

import numpy as np
import pytest

from vit_jax.checkpoints import files


def test_all_arrays_are_read(tmp_path) -> None:
    path = tmp_path / "x.npz"
    contents: dict[str, Any] = {"a/b": np.arange(3), "c": np.ones((2, 2))}
    np.savez(path, **contents)
    arrays = files.read_npz(path)
    assert sorted(arrays) == ["a/b", "c"]
    np.testing.assert_array_equal(arrays["a/b"], [0, 1, 2])


class Bomb:
    """Makes a file when it is unpickled."""

    def __init__(self, path: pathlib.Path) -> None:
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_pickled_content_is_refused_and_not_run(tmp_path) -> None:
    exploded = tmp_path / "exploded"
    bare, inside = tmp_path / "bare.npz", tmp_path / "inside.npz"
    bare.write_bytes(pickle.dumps(Bomb(exploded)))
    np.savez(inside, good=np.ones(2), bad=np.array([Bomb(exploded)], object))
    for path in (bare, inside):
        with pytest.raises(ValueError, match=rf"{path.name} is no (readable )?\.npz checkpoint"):
            files.read_npz(path)
    assert not exploded.exists()
    pickle.loads(bare.read_bytes())
    assert exploded.exists(), "the bomb would have worked"


def huge() -> bytes:
    """An archive whose one member says it holds 40 TB."""
    header, archive = io.BytesIO(), io.BytesIO()
    shape = {"descr": "<f4", "fortran_order": False, "shape": (10**13,)}
    np.lib.format.write_array_header_1_0(header, shape)
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("a.npy", header.getvalue() + b"1234")
    return archive.getvalue()


def bare_array() -> bytes:
    file = io.BytesIO()
    np.save(file, np.ones(3))
    return file.getvalue()


@pytest.mark.parametrize("content", [b"", b"no archive", b"PK\x03\x04", bare_array(), huge()])
def test_other_content_is_refused_in_one_line(tmp_path, content) -> None:
    path = tmp_path / "x.npz"
    path.write_bytes(content)
    with pytest.raises(ValueError, match="checkpoint: ") as error:
        files.read_npz(path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_damaged_bytes_are_refused_or_harmless(tmp_path) -> None:
    """Every byte of a small compressed file, changed on its own."""
    path, values = tmp_path / "x.npz", np.random.default_rng(0).normal(size=8)
    np.savez_compressed(path, a=values)
    whole, refused = path.read_bytes(), 0
    for place in range(len(whole)):
        damaged = bytearray(whole)
        damaged[place] ^= 0x55
        path.write_bytes(damaged)
        try:
            for array in files.read_npz(path).values():
                np.testing.assert_array_equal(array, values)
        except ValueError:
            refused += 1
    assert refused > len(whole) / 2
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match="checkpoint"):
        files.read_npz(path)


def test_a_missing_file_is_named(tmp_path) -> None:
    with pytest.raises(ValueError, match=r"no checkpoint at .*gone\.npz"):
        files.read_npz(tmp_path / "gone.npz")
