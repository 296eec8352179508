"""Checkpoint files of every format are read; damaged and hostile ones are refused in one line."""

import argparse
import importlib
import json
import struct
import zipfile
from collections import OrderedDict

import numpy as np
import pytest
from safetensors import numpy as safetensors_numpy

from tests.checkpoints.torch_names import Storage, Tensor, TorchNames
from vit_jax.checkpoints import files, torch_file

VALUES = np.arange(12, dtype=np.float32).reshape(3, 4)


def test_bfloat16_and_half_become_float32(tmp_path):
    bits = VALUES.view(np.uint32) >> 16
    np.savez(
        tmp_path / "a.npz",
        brain=bits.astype(np.uint16).view("V2"),
        half=VALUES.astype(np.float16),
        double=VALUES.astype(np.float64),
        count=np.arange(3),
    )
    arrays = files.read_arrays(tmp_path / "a.npz")
    for name in ("brain", "half", "double"):
        np.testing.assert_array_equal(arrays[name], VALUES)
        assert arrays[name].dtype == np.float32
    assert arrays["count"].dtype == np.int64


def test_safetensors_of_mixed_dtypes(tmp_path):
    bits = (VALUES.view(np.uint32) >> 16).astype("<u2")
    header = {
        "brain": {"dtype": "BF16", "shape": [3, 4], "data_offsets": [0, 24]},
        "half": {"dtype": "F16", "shape": [3, 4], "data_offsets": [24, 48]},
    }
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    content = struct.pack("<Q", len(text)) + text + bits.tobytes()
    content += VALUES.astype("<f2").tobytes()
    (tmp_path / "a.safetensors").write_bytes(content)
    arrays = files.read_arrays(tmp_path / "a.safetensors")
    for name in ("brain", "half"):
        np.testing.assert_array_equal(arrays[name], VALUES)
        assert arrays[name].dtype == np.float32


def test_sharded_checkpoints_are_joined(tmp_path):
    safetensors_numpy.save_file({"a": VALUES}, tmp_path / "1.safetensors")
    torch_file.write(tmp_path / "2.bin", {"b": VALUES + 1})
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": "1.safetensors", "b": "2.bin"}}))
    arrays = files.read_arrays(files.locate(tmp_path))
    np.testing.assert_array_equal(arrays["b"], arrays["a"] + 1)

    index.write_text(json.dumps({"weight_map": {"a": "1.safetensors", "c": "1.safetensors"}}))
    with pytest.raises(ValueError, match="its shards lack c"):
        files.read_arrays(index)
    index.write_text(json.dumps({"weight_map": {"a": "3.safetensors"}}))
    with pytest.raises(ValueError, match="its shard 3.safetensors is missing"):
        files.read_arrays(index)
    index.write_text(json.dumps({"weight_map": {"a": "../1.safetensors"}}))
    with pytest.raises(ValueError, match="in another folder"):
        files.read_arrays(index)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ({"a": 3}, "its weight_map has values that are not names"),
        ({"a": 3, "b": "1.safetensors"}, "its weight_map has values that are not names"),
        ({"a": {"b": 1}}, "its weight_map has values that are not names"),
        ({"a": "model.safetensors.index.json"}, "is not a file of arrays"),
        ({"a": "/1.safetensors"}, "in another folder"),
        ({"a": ".."}, "is missing"),
        (["a"], "it has no weight_map"),
    ],
)
def test_a_bad_index_is_refused(tmp_path, names, message):
    safetensors_numpy.save_file({"a": VALUES}, tmp_path / "1.safetensors")
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": names}))
    with pytest.raises(ValueError, match=message) as error:
        files.read_arrays(index)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("claimed", "header"),
    [
        (2**62, {}),
        (10**8 + 1, {}),
        (0, {}),
        (None, {"a": {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 2**42]}}),
        (None, {"a": {"dtype": "F32", "shape": [-3], "data_offsets": [0, 12]}}),
        (None, {"a": {"dtype": "F32", "shape": ["NaN"], "data_offsets": [0, 12]}}),
        (None, {"a": {"dtype": "X9", "shape": [12], "data_offsets": [0, 12]}}),
        (None, {"a": {"dtype": "F8_E4M3", "shape": [12], "data_offsets": [0, 12]}}),
    ],
)
def test_a_safetensors_header_with_a_wrong_size_is_refused(tmp_path, claimed, header):
    text = json.dumps(header).encode()
    length = len(text) if claimed is None else claimed
    (tmp_path / "a.safetensors").write_bytes(struct.pack("<Q", length) + text + bytes(12))
    with pytest.raises(ValueError, match="is not a readable checkpoint") as error:
        files.read_arrays(tmp_path / "a.safetensors")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("text", ["{", "[1]", "[" * 100_000])
def test_a_config_that_is_not_a_json_object_is_refused(tmp_path, text):
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(ValueError, match="config.json (is not readable JSON|must hold a JSON obj)"):
        files.read_beside(tmp_path / "model.safetensors")


def test_a_pth_written_here_is_read_back(tmp_path):
    arrays = {
        "a": VALUES.T,
        "scalar": np.full((), 3, np.float32),
        "empty": np.zeros((0, 2), np.float32),
    }
    torch_file.write(tmp_path / "a.pth", arrays, key="model")
    read = files.read_arrays(tmp_path / "a.pth")
    assert {k: v.shape for k, v in read.items()} == {"a": (4, 3), "scalar": (), "empty": (0, 2)}
    np.testing.assert_array_equal(read["a"], VALUES.T)


@pytest.mark.parametrize("legacy", [False, True])
def test_a_training_checkpoint_gives_the_tensors_of_its_model(tmp_path, torch_names, legacy):
    path = tmp_path / "a.pth"
    torch_names.save(path, training_checkpoint(), legacy=legacy)
    contents = files.contents(path)
    arrays = contents.arrays
    assert contents.notes == ("read 'model' of the file; left out: optimizer",)
    assert sorted(arrays) == ["brain", "expanded", "plain", "steps", "transposed"]
    np.testing.assert_array_equal(arrays["plain"], np.arange(6.0).reshape(2, 3))
    np.testing.assert_array_equal(arrays["transposed"], np.arange(12.0, 24).reshape(4, 3).T)
    np.testing.assert_array_equal(arrays["expanded"], np.full((4, 2), 5.0))
    np.testing.assert_array_equal(arrays["brain"], VALUES)
    np.testing.assert_array_equal(arrays["steps"], [2, 3])

    whole = path.read_bytes()
    for length in range(4, len(whole) - 1, len(whole) // 40):
        path.write_bytes(whole[:length])
        with pytest.raises(ValueError, match="is not a readable checkpoint: it") as error:
            files.read_arrays(path)
        assert "\n" not in str(error.value)


def tensor(start: int) -> Tensor:
    storage = Storage(str(start), "FloatStorage", np.arange(start, start + 6, dtype=np.float32))
    return Tensor(storage, 0, (2, 3), (3, 1))


@pytest.mark.parametrize(
    ("average", "content"),
    [
        ("state_dict_ema", {"state_dict": {"a": tensor(0)}, "state_dict_ema": {"a": tensor(10)}}),
        ("model_ema", {"model": {"a": tensor(0)}, "model_ema": {"a": tensor(10)}}),
        ("ema", {"model": {"a": tensor(0)}, "ema": {"a": tensor(10)}}),
        ("ema.module", {"model": {"a": tensor(0)}, "ema": {"n": 1, "module": {"a": tensor(10)}}}),
        ("swa_model", {"model": {"a": tensor(0)}, "swa_model": {"module.a": tensor(10)}}),
    ],
)
def test_the_average_of_a_file_is_read_with_a_note(tmp_path, torch_names, average, content):
    torch_names.save(tmp_path / "a.pth", content, legacy=False)
    found = files.contents(tmp_path / "a.pth")
    assert found.arrays["a"][0, 0] == 10
    model = next(iter(content))
    assert found.notes[0] == f"read {average!r} of the file; left out: {model}"
    of_deit = found.key in ("model", "module")
    assert of_deit == (model == "model"), "the code that saved the file is known by its key"


def test_an_average_of_another_form_is_left_out(tmp_path, torch_names):
    content = {"model": {"a": tensor(0)}, "ema": {"decay": 0.9, "shadow": {"a": tensor(10)}}}
    torch_names.save(tmp_path / "a.pth", content, legacy=False)
    found = files.contents(tmp_path / "a.pth")
    assert found.arrays["a"][0, 0] == 0
    assert found.notes == ("read 'model' of the file; left out: ema",)


def test_numbers_that_float32_cannot_hold_are_refused_by_name(tmp_path):
    np.savez(tmp_path / "a.npz", fine=np.float64([np.inf]), large=np.float64([1.0, 1e300]))
    with pytest.raises(ValueError, match="large holds 1e\\+300, which is too large for float32"):
        files.contents(tmp_path / "a.npz")


def test_the_teacher_of_a_file_is_read_with_a_note(tmp_path, torch_names):
    content = {
        "student": {"module.backbone.patch_embed.proj.weight": tensor(0)},
        "teacher": {
            "backbone.patch_embed.proj.weight": tensor(10),
            "head.mlp.0.weight": tensor(20),
        },
        "optimizer": {"state": {0: {"exp_avg": tensor(30)}}},
        "epoch": 3,
    }
    torch_names.save(tmp_path / "a.pth", content, legacy=False)
    found = files.contents(tmp_path / "a.pth")
    assert found.key == "teacher"
    assert found.arrays.keys() == {"patch_embed.proj.weight"}
    assert found.arrays["patch_embed.proj.weight"][0, 0] == 10
    assert found.notes == (
        "read 'teacher' of the file; left out: student, optimizer",
        "read the model under 'backbone.'",
        "left out: head.mlp.0.weight",
    )


class Call:
    """An object that is pickled as the call of a function."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize(
    "name", ["os.system", "builtins.eval", "builtins.getattr", "shutil.rmtree"]
)
def test_a_malicious_pickle_is_refused_and_runs_nothing(tmp_path, torch_names, name, legacy):
    module, function = name.split(".")
    victim = tmp_path / "victim"
    victim.mkdir()
    argument = f"touch {tmp_path}/ran" if function == "system" else str(victim)
    call = Call(getattr(importlib.import_module(module), function), argument)
    torch_names.save(tmp_path / "a.pth", {"model": {"x": call}}, legacy=legacy)
    with pytest.raises(ValueError, match="it names .*, which could run code"):
        files.read_arrays(tmp_path / "a.pth")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.pth", "victim"]


@pytest.mark.parametrize(
    "opcodes",
    [
        b"cos\nsystem\n(X\x04\x00\x00\x00exittR.",
        b"(ios\nsystem\n.",
        b"(cos\nsystem\no.",
        b"\x8c\x02os\x8c\x06system\x93.",
        b"\x82\x01.",
        b"ctorch._utils\n_rebuild_tensor_v2\nX\x01\x00\x00\x00ab.",
        b"Pos\n.",
    ],
    ids=["reduce", "inst", "obj", "stack_global", "extension", "build", "persistent"],
)
def test_no_opcode_reaches_a_function(tmp_path, opcodes):
    with zipfile.ZipFile(tmp_path / "a.pth", "w") as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02" + opcodes)
    with pytest.raises(ValueError, match="it (names|uses|sets|refers)"):
        files.read_arrays(tmp_path / "a.pth")


def test_a_tensor_beyond_its_storage_is_refused(tmp_path, torch_names):
    storage = Storage("0", "FloatStorage", np.zeros(4, np.float32))
    for offset, shape, strides in ((0, (5,), (1,)), (3, (2,), (1,))):
        content = {"x": Tensor(storage, offset, shape, strides)}
        torch_names.save(tmp_path / "a.pth", content, legacy=False)
        with pytest.raises(ValueError, match="reaches beyond its storage"):
            files.read_arrays(tmp_path / "a.pth")


@pytest.mark.parametrize("legacy", [False, True])
def test_views_of_one_storage_read_it_once(tmp_path, torch_names, monkeypatch, legacy):
    storage = Storage("0", "FloatStorage", np.arange(9, dtype=np.float32))
    views = {f"x{i}": Tensor(storage, i, (2, 2), (3, 1)) for i in range(5)}
    torch_names.save(tmp_path / "a.pth", {"model": views}, legacy=legacy)
    file, reads = torch_file.TorchFile(tmp_path / "a.pth"), []
    read = file._bytes
    monkeypatch.setattr(file, "_bytes", lambda key: reads.append(key) or read(key))
    for i, array in enumerate(file.arrays(file.content["model"]).values()):
        np.testing.assert_array_equal(array, [[i, i + 1], [i + 3, i + 4]])
    assert reads == ["0"]


@pytest.mark.parametrize("name", ["a.npz", "a.pth", "a.safetensors", "a.bin"])
def test_a_text_file_is_refused_with_its_first_bytes(tmp_path, name):
    (tmp_path / name).write_text("<html>404: not found</html>\n" * 3)
    with pytest.raises(ValueError, match="it begins with b'<html>40', which is none of .npz"):
        files.read_arrays(tmp_path / name)


@pytest.mark.parametrize("name", ["a.npz", "a.safetensors"])
def test_a_truncated_file_is_refused(tmp_path, name):
    np.savez(tmp_path / "a.npz", a=VALUES, b=VALUES)
    safetensors_numpy.save_file({"a": VALUES}, tmp_path / "a.safetensors")
    whole = (tmp_path / name).read_bytes()
    for length in range(0, len(whole), max(len(whole) // 20, 1)):
        (tmp_path / name).write_bytes(whole[:length])
        with pytest.raises(ValueError, match="is not a readable checkpoint") as error:
            files.read_arrays(tmp_path / name)
        assert "\n" not in str(error.value)


def test_objects_in_an_npz_are_refused(tmp_path):
    np.savez(tmp_path / "a.npz", a=np.array([Call(print, 1)], dtype=object))
    with pytest.raises(ValueError, match="a.npy holds Python objects"):
        files.read_arrays(tmp_path / "a.npz")


def test_a_missing_file_and_an_empty_folder_are_named(tmp_path):
    with pytest.raises(ValueError, match="no checkpoint at .*absent.npz"):
        files.locate(tmp_path / "absent.npz")
    with pytest.raises(ValueError, match="has no model.json of a run and no"):
        files.locate(tmp_path)


def training_checkpoint():
    """A training checkpoint as DeiT and MAE save it: the model with the trainer's state."""
    base = Storage("0", "FloatStorage", np.arange(24, dtype=np.float32))
    brain = Storage("1", "BFloat16Storage", (VALUES.view(np.uint32) >> 16).astype(np.uint16))
    steps = Storage("2", "LongStorage", np.array([1, 2, 3]))
    other = Storage("9", "LongStorage", np.array([7, 8, 9]))  # of an unread record
    model = {
        "module.plain": Tensor(base, 0, (2, 3), (3, 1)),
        "module.transposed": Tensor(base, 12, (3, 4), (1, 3)),
        "module.expanded": Tensor(base, 5, (4, 2), (0, 0)),
        "module.brain": Tensor(brain, 0, (3, 4), (4, 1)),
        "module.steps": Tensor(steps, 1, (2,), (1,)),
    }
    return {
        "model": OrderedDict(model),
        "optimizer": {"state": {0: {"exp_avg": Tensor(base, 0, (24,), (1,))}}, "lr": 0.1},
        "args": argparse.Namespace(
            lr=np.float64(0.1), sizes=[1, 2], weights=Tensor(other, 0, (3,), (1,))
        ),
        "best": np.float32(81.2),
        "seen": {1, 2},
        "epoch": 300,
    }


@pytest.fixture
def torch_names(monkeypatch):
    return TorchNames(monkeypatch)
