"""Files with wrong sizes, or that would take far more memory than their size, are refused."""

import json
import pathlib
import struct
import time
import zipfile

import numpy as np
import pytest

import vit_jax
from tests.checkpoints.torch_names import little_memory, refusal
from tests.models import tiny
from vit_jax.checkpoints import files, load, run_folder
from vit_jax.training import run_config


@pytest.fixture(autouse=True)
def _soon():
    begin = time.process_time()
    yield
    assert time.process_time() - begin < 5


def npz(path: pathlib.Path, **members: bytes) -> pathlib.Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in members.items():
            archive.writestr(name.replace("__", "."), data)
    return path


def npy(header: bytes | None = None, version: bytes = b"\1\0", body: bytes = bytes(24)) -> bytes:
    if header is None:
        header = b"{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }\n"
    size = struct.pack("<H" if version == b"\1\0" else "<I", len(header))
    return b"\x93NUMPY" + version + size + header + body


def test_a_file_of_good_members_is_read(tmp_path):
    assert files.read_arrays(npz(tmp_path / "a.npz", x__npy=npy()))["x"].shape == (2, 3)


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"README__txt": b"hello"}, "it holds README.txt, which is not an array"),
        ({"inner__npz": b"PK\3\4"}, "it holds inner.npz, which is not an array"),
        ({"y__npy": b"\x80\x04K\x01."}, "it holds y.npy, which is not an array"),
        ({"y__npy": b""}, "it holds y.npy, which is not an array"),
        ({"z": npy()}, "it holds z, which is not an array"),
    ],
)
def test_a_foreign_member_of_an_npz_is_named(tmp_path, members, message):
    assert message in refusal(npz(tmp_path / "a.npz", x__npy=npy(), **members))


def test_two_members_of_one_name_are_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("x.npy", npy())
        with pytest.warns(UserWarning, match="Duplicate"):
            archive.writestr("x.npy", npy(body=bytes(range(24))))
    assert "two arrays named x" in refusal(tmp_path / "a.npz")


HEADER = "{'descr': '<f4', 'fortran_order': False, 'shape': (%s,), }"


@pytest.mark.parametrize(
    "header",
    [
        HEADER % str(2**38),
        HEADER % "-6",
        HEADER % "-2, -3",
        HEADER % ("9" * 4000),
        HEADER % ("9" * 5000),
        HEADER % ", ".join(["2"] * 70),
        HEADER % "True",
        HEADER.replace("<f4", "<f400000000") % "6",
        HEADER.replace("<f4", "|O") % "6",
        HEADER.replace("'<f4'", "[('a', '<f4'), ('b', '|O')]") % "3",
        HEADER.replace("'<f4'", "(" * 90 + ")" * 90) % "6",
        "(" * 5000,
        "[" * 60 + "]" * 60,
        "-" * 9000 + "1",
        "{" * 90,
        "{'descr': '<f4'",
        "'''",
        "x" * 70000,
        "\0\xff",
        "",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3)}  # " + "x" * 9990,
    ],
)
@pytest.mark.parametrize("version", [b"\1\0", b"\2\0", b"\3\0", b"\7\7"])
def test_a_bad_header_in_an_npz_is_refused(tmp_path, header, version):
    if len(header) > 65000 and version == b"\1\0":
        header = header[:65000]
    path = npz(tmp_path / "a.npz", x__npy=npy(header.encode("latin1"), version))
    with little_memory():
        assert "x.npy" in refusal(path)


def test_a_huge_header_is_refused(tmp_path):
    data = b"\x93NUMPY\2\0" + struct.pack("<I", 2**32 - 1) + b"{}"
    assert "x.npy" in refusal(npz(tmp_path / "a.npz", x__npy=data))


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
@pytest.mark.parametrize("suffix", ["npz", "pth"])
def test_damaged_compressed_members_are_refused(tmp_path, method, suffix):
    names = {"npz": ("x.npy",), "pth": ("archive/data.pkl", "archive/data/0")}[suffix]
    with zipfile.ZipFile(tmp_path / "good", "w", method) as archive:
        for name in names:
            archive.writestr(name, npy(body=bytes(24)) * 20)
    good = (tmp_path / "good").read_bytes()
    path = tmp_path / f"bad.{suffix}"
    for at in range(30, 120, 3):
        path.write_bytes(good[:at] + bytes([good[at] ^ 255]) + good[at + 1 :])
        refusal(path)


# -- .safetensors and JSON


def safetensors_file(path: pathlib.Path, header: bytes, size: int | None = None) -> pathlib.Path:
    path.write_bytes(struct.pack("<Q", len(header) if size is None else size) + header)
    return path


@pytest.mark.parametrize(
    ("header", "size"),
    [
        (b"{}", 2**62),
        (b"{}", 2**64 - 1),
        (b"{}", 10**8 + 1),
        (b'{"a":' * 100_000 + b"1" + b"}" * 100_000, None),
        (b'{"a":{"dtype":"F32","shape":[-4],"data_offsets":[0,16]}}', None),
        (b'{"a":{"dtype":"F32","shape":[4611686018427387904,8],"data_offsets":[0,16]}}', None),
        (b'{"a":{"dtype":"F32","shape":[1048576],"data_offsets":[0,4194304]}}', None),
    ],
)
def test_a_wrong_header_of_safetensors_is_refused(tmp_path, header, size):
    refusal(safetensors_file(tmp_path / "a.safetensors", header, size))


DEEP = ["[" * 200_000, '{"a":' * 200_000, '{"a":' * 500 + "1" + "}" * 500, "[" * 150 + "]" * 150]


@pytest.mark.parametrize("deep", DEEP)
@pytest.mark.parametrize("name", ["config.json", "preprocessor_config.json"])
def test_deeply_nested_json_beside_a_checkpoint_is_refused(tmp_path, deep, name):
    (tmp_path / name).write_text(deep)
    with pytest.raises(ValueError, match=f"{name} is not readable JSON: it is nested too deep"):
        files.read_beside(tmp_path / "model.safetensors")


@pytest.mark.parametrize("deep", DEEP)
def test_a_deeply_nested_index_or_card_is_refused(tmp_path, deep):
    (tmp_path / "a.index.json").write_text(deep)
    assert "nested too deep" in refusal(tmp_path / "a.index.json")
    for name, read in (
        ("model.json", run_folder.read_card),
        ("config.json", run_config.read_config),
    ):
        (tmp_path / name).write_text(deep)
        with pytest.raises(ValueError, match=f"{name} is damaged: it is nested too deep"):
            read(tmp_path)


@pytest.mark.parametrize("value", ["7" * 5000, "1e999", "[]", "null", '"\\ud800"'])
def test_odd_json_is_refused_or_read(tmp_path, value):
    (tmp_path / "config.json").write_text(json.dumps({"x": 1})[:-1] + f', "y": {value}}}')
    if len(value) > 4300:
        with pytest.raises(ValueError, match=r"config\.json is not readable JSON") as error:
            files.read_beside(tmp_path / "a.npz")
        assert "\n" not in str(error.value)
    else:
        assert files.read_beside(tmp_path / "a.npz").config["x"] == 1


@pytest.mark.parametrize("name", ["encoderblock_2000", "encoderblock_99999999"])
def test_a_name_with_a_million_layers_is_refused(tmp_path, name):
    """Otherwise the list of missing arrays would fill the memory."""
    path = tmp_path / "a.npz"
    vit_jax.save(tiny.model(image_size=(16, 16)), path, layout="vit_jax")
    arrays = files.read_arrays(path)
    place = "Transformer/encoderblock_0/LayerNorm_0/scale"
    arrays[place.replace("encoderblock_0", name)] = arrays[place]
    np.savez(path, **arrays)
    with little_memory(), pytest.raises(ValueError, match=r"named for 2001 layers|depth is 1"):
        load.read(path)


def test_the_list_of_misfits_is_limited(tmp_path):
    path = tmp_path / "a.npz"
    vit_jax.save(tiny.model(image_size=(16, 16)), path, layout="vit_jax")
    extra = {f"more_{i}": np.zeros(1) for i in range(100)}
    np.savez(path, **files.read_arrays(path), **extra)
    with pytest.raises(ValueError, match=r"100 misfits: unexpected more_0 .*; and 80 more$"):
        load.read(path)
