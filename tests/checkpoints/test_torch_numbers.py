"""PyTorch files: tensors of all dtypes, byte orders and formats are read; bad ones refused."""

import io
import pathlib
import pickle
import zipfile
from collections import OrderedDict

import numpy as np
import pytest

from tests.checkpoints.torch_names import Storage, Tensor, TorchNames, named, pth, refusal, tensor
from vit_jax.checkpoints import files, torch_file, torch_pickle


@pytest.fixture
def torch_names(monkeypatch):
    return TorchNames(monkeypatch)


@pytest.mark.parametrize("protocol", range(6))
def test_plain_content_is_read_as_python_reads_it(protocol):
    shared = [1, -2, 2**31, 2**70, 1.5]
    content = {
        "a": [shared, shared, (), (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4), [], {}, "", "ä"],
        "b": OrderedDict([("x", None), (3, True), (2.5, False)]),
        "c": {"nested": {"deep": [[[shared]]], "again": {"k": "v"}}},
    }
    stream = io.BytesIO(pickle.dumps(content, protocol) + pickle.dumps("next"))
    assert torch_pickle.interpret(stream) == content
    assert torch_pickle.interpret(stream) == "next", "a file holds several, one after the other"


@pytest.mark.parametrize("opcodes", [b"\x85", b"K\1\x86", b"NN\x87", b"N\x86\x85", b"(N", b"NN"])
def test_a_pickle_that_pops_too_much_or_leaves_values_is_refused(opcodes):
    with pytest.raises(ValueError, match="its pickle is damaged"):
        torch_pickle.interpret(io.BytesIO(b"\x80\x02" + opcodes + b"."))


KINDS = {
    **{"Float": "<f4", "Double": "<f8", "Half": "<f2", "Long": "<i8", "Int": "<i4"},
    **{"Short": "<i2", "Char": "i1", "Byte": "u1", "Bool": "?"},
}


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("legacy", [False, True])
def test_numbers_of_every_kind_and_order_are_read(tmp_path, torch_names, legacy, order):
    content = {}
    for i, (kind, dtype) in enumerate(KINDS.items()):
        numbers = np.array([-3, 0, 1, 100, 2]).astype(dtype)
        torch_names.known(f"{kind}Storage")
        content[kind] = Tensor(Storage(str(i), f"{kind}Storage", numbers), 1, (2, 2), (2, 1))
    torch_names.save(tmp_path / "a.pth", content, legacy=legacy, order=order)
    arrays = files.read_arrays(tmp_path / "a.pth")
    for kind, dtype in KINDS.items():
        expected = np.array([[0, 1], [100, 2]]).astype(dtype)
        np.testing.assert_array_equal(arrays[kind], expected, err_msg=kind)
        assert arrays[kind].dtype.kind == expected.dtype.kind
        assert arrays[kind].dtype.isnative


UNTYPED = {
    **{"float32": "<f4", "float64": "<f8", "float16": "<f2", "int64": "<i8", "int32": "<i4"},
    **{"int16": "<i2", "int8": "i1", "uint8": "u1", "uint16": "<u2", "uint32": "<u4", "bool": "?"},
}


def numbered(kind: str, size: int, shape: int, *, view: bytes = b"", more: bytes = b"") -> bytes:
    """The opcodes of a tensor (shape,) at offset 1 of storage 0; `kind` is the storage's class."""
    called = b"_rebuild_tensor_v3" if more else b"_rebuild_tensor_v2"
    storage = b"(X\7\0\0\0storagec" + kind.encode() + b"\nX\1\0\0\0" + b"0X\3\0\0\0cpuK"
    storage += bytes([size]) + view + b"tQ"
    rest = b"K\1K" + bytes([shape]) + b"\x85K\1\x85\x89)" + more
    return b"ctorch._utils\n" + called + b"\n(" + storage + rest + b"tR"


def zipped(path: pathlib.Path, tensor: bytes, numbers: bytes) -> pathlib.Path:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02}X\1\0\0\0x" + tensor + b"s.")
        archive.writestr("archive/data/0", numbers)
    return path


@pytest.mark.parametrize("kind", UNTYPED)
def test_a_tensor_of_an_untyped_storage_has_its_own_dtype(tmp_path, kind):
    numbers = np.array([-3, 1, 0, 100]).astype(UNTYPED[kind])
    more = f"ctorch\n{kind}\n".encode()
    tensor = numbered("torch.storage\nUntypedStorage", numbers.nbytes, 3, more=more)
    read = files.read_arrays(zipped(tmp_path / "a.pth", tensor, numbers.tobytes()))["x"]
    np.testing.assert_array_equal(read, numbers[1:])
    beyond = numbered("torch.storage\nUntypedStorage", numbers.nbytes, 4, more=more)
    with pytest.raises(ValueError, match="reaches beyond its storage"):
        files.read_arrays(zipped(tmp_path / "a.pth", beyond, numbers.tobytes()))


def test_a_storage_may_be_a_part_of_another(tmp_path):
    numbers = np.arange(8, dtype="<f4")
    view = b"(X\3\0\0\0" + b"0_3K\3K\4t"  # four numbers from the fourth on
    tensor = numbered("torch\nFloatStorage", 8, 3, view=view)
    read = files.read_arrays(zipped(tmp_path / "a.pth", tensor, numbers.tobytes()))["x"]
    np.testing.assert_array_equal(read, [4, 5, 6])
    beyond = numbered("torch\nFloatStorage", 8, 4, view=view)
    with pytest.raises(ValueError, match="reaches beyond its storage"):
        files.read_arrays(zipped(tmp_path / "a.pth", beyond, numbers.tobytes()))


@pytest.mark.parametrize(
    ("name", "rest"),
    [("_rebuild_parameter", b"\x89)"), ("_rebuild_parameter_with_state", b"\x89)}")],
)
def test_a_parameter_is_its_tensor(tmp_path, name, rest):
    tensor = numbered("torch\nFloatStorage", 4, 2)
    called = b"ctorch._utils\n" + name.encode() + b"\n(" + tensor + rest + b"tR"
    numbers = np.arange(4, dtype="<f4")
    read = files.read_arrays(zipped(tmp_path / "a.pth", called, numbers.tobytes()))["x"]
    np.testing.assert_array_equal(read, [1, 2])


def test_an_archive_with_two_pickles_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.pth", "w") as archive:
        for root in ("a", "b"):
            archive.writestr(f"{root}/data.pkl", b"\x80\x02}.")
    with pytest.raises(ValueError, match="not of torch.save: it has 2 files data.pkl"):
        files.read_arrays(tmp_path / "a.pth")


def test_integers_and_booleans_are_written_as_int64(tmp_path):
    given = {"count": np.int32([2**31 - 1, -1]), "flags": np.array([True, False]),
             "large": np.zeros(0, np.float16)}  # fmt: skip
    torch_file.write(tmp_path / "a.pth", given)
    read = files.read_arrays(tmp_path / "a.pth")
    for name in ("count", "flags"):
        assert read[name].dtype == np.int64
        np.testing.assert_array_equal(read[name], given[name])


@pytest.mark.parametrize(
    ("shape", "strides", "offset"),
    [((2,), (1,), -1), ((2,), (-1,), 1), ((2, 2), (2, -1), 1), ((-2,), (1,), 0)],
    ids=["offset", "stride", "one of two strides", "shape"],
)
def test_a_tensor_with_negative_sizes_is_refused(tmp_path, shape, strides, offset):
    """It would expose memory before its storage, or its numbers in another order."""
    path = pth(tmp_path / "a.pth", named(tensor(4, shape, strides, offset)))
    assert "its pickle is damaged" in refusal(path)


def test_a_tensor_with_more_axes_than_strides_is_refused(tmp_path):
    path = pth(tmp_path / "a.pth", named(tensor(4, (2, 2), (1,))))
    assert "its pickle is damaged" in refusal(path)


@pytest.mark.parametrize("kind", ["ComplexFloatStorage", "QInt8Storage", "Storage", "NoStorage"])
def test_an_unknown_dtype_is_refused(tmp_path, kind):
    one = tensor(4, (4,), (1,)).replace(b"FloatStorage", kind.encode())
    path = pth(tmp_path / "a.pth", named(one), storage=bytes(64))
    name = kind.removesuffix("Storage")
    assert f"a tensor of type {name}, which cannot be read" in refusal(path)


def test_a_tensor_with_too_many_axes_is_refused(tmp_path):
    path = pth(tmp_path / "a.pth", named(tensor(1, (1,) * 65, (1,) * 65)))
    assert "its pickle is damaged" in refusal(path)


@pytest.mark.parametrize(
    ("pickle", "message"),
    [
        (b"}(K\1u", "is damaged"),
        (b"(K\1d", "is damaged"),
        (b"]Nb", "sets the state of an object that is not a record"),
        (b"cos\nMyStorage\n", "names os.MyStorage"),
        (b"ctorch\nload\n", "names torch.load"),
        (b"ctorch.hub\nfloat32\n", "names torch.hub.float32"),
        (b"(X\6\0\0\0moduleNNNNtQ", "not a tensor's storage"),
        (b"(X\7\0\0\0storageNtQ", "not a tensor's storage"),
        (
            numbered("torch\nFloatStorage", 4, 2).replace(b"storage", b"modules"),
            "not a tensor's storage",
        ),
    ],
)
def test_pickles_that_no_checkpoint_needs_are_refused(tmp_path, pickle, message):
    assert message in refusal(pth(tmp_path / "a.pth", pickle))
