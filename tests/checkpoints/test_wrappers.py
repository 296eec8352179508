"""A model is found in its trainer's checkpoint of any format, and left-out arrays are noted."""

import itertools
import json
from typing import Any

import numpy as np
import pytest
from safetensors import numpy as safetensors_numpy

from tests.checkpoints.parity import TINY
from vit_jax.checkpoints import load, save, surgery, torch_file, wrappers
from vit_jax.checkpoints.layouts import table
from vit_jax.checkpoints.layouts.hf.layout import LAYOUT as hf
from vit_jax.checkpoints.layouts.timm.vit import LAYOUT as timm

HEADS: Any = {"num_heads": TINY.num_heads}


@pytest.fixture(scope="module")
def params() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    shapes = surgery.shapes(TINY)
    return {path: rng.normal(0, 0.1, shape).astype(np.float32) for path, shape in shapes.items()}


@pytest.fixture(scope="module")
def state(params) -> dict[str, np.ndarray]:
    return table.write(timm.entries(TINY), params)


def write(path, arrays):
    """Writes a file of the format of its suffix; a folder is written as a sharded checkpoint."""
    arrays = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    if path.suffix == ".safetensors":
        safetensors_numpy.save_file(arrays, path)
    elif path.suffix == ".pth":
        torch_file.write(path, arrays)
    elif path.suffix == ".npz":
        np.savez(path, **arrays)
    else:
        path.mkdir()
        names = sorted(arrays)
        shards = {"1.safetensors": names[::2], "2.bin": names[1::2]}
        safetensors_numpy.save_file({n: arrays[n] for n in names[::2]}, path / "1.safetensors")
        torch_file.write(path / "2.bin", {n: arrays[n] for n in names[1::2]})
        index = {name: shard for shard, held in shards.items() for name in held}
        (path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))
    return path


def check(checkpoint, params):
    assert checkpoint.params.keys() == params.keys()
    for path, array in params.items():
        np.testing.assert_array_equal(checkpoint.params[path], array)


PREFIXES = ["_orig_mod.", "module.", "model.", "backbone.", "encoder.", "student.", "teacher.",
            "net.", "base_encoder.", "momentum_encoder.", "student.backbone.",
            "teacher.backbone.", "module._orig_mod.model.", "model.encoder.module.",
            "_orig_mod.module.encoder.backbone."]  # fmt: skip


@pytest.mark.parametrize("file", ["a.safetensors", "a.pth", "a.npz", "folder"])
def test_wrappers_are_removed_in_every_kind_of_file(tmp_path, params, state, file):
    foreign = {"criterion.weight": np.ones(3, np.float32), "loss.centre": np.ones(2, np.float32)}
    for i, prefix in enumerate(PREFIXES):
        wrapped = {prefix + name: array for name, array in state.items()} | foreign
        where = tmp_path / str(i)
        where.mkdir()
        read = load.read(write(where / file, wrapped), **HEADS)
        check(read, params)
        assert any("criterion.weight" in note and "loss.centre" in note for note in read.notes)


def test_prefixes_in_any_order_are_removed(state):
    words = ("_orig_mod.", "module.", "model.", "encoder.", "net.")
    for order in itertools.permutations(words, 3):
        names, _ = wrappers.unwrapped("".join(order) + name for name in state)
        assert sorted(names.values()) == sorted(state)


def test_the_prefix_of_a_compiled_part_is_removed(state):
    def inside(name):
        return name.replace("blocks.1.", "blocks.1._orig_mod.").replace("mlp.", "mlp._orig_mod.")

    names, notes = wrappers.unwrapped(map(inside, state))
    assert sorted(names.values()) == sorted(state)
    assert not notes


def test_the_teacher_is_read_with_a_note(tmp_path, params, state):
    other = {name: array + 1 for name, array in state.items()}
    arrays = {
        **{f"module.teacher.backbone.{name}": array for name, array in state.items()},
        **{f"module.student.backbone.{name}": array for name, array in other.items()},
        "module.teacher.head.mlp.0.weight": np.ones((3, 3), np.float32),
        "module.student.head.mlp.0.weight": np.ones((3, 3), np.float32),
        "module.dino_loss.center": np.ones((1, 3), np.float32),
        "optimizer.exp_avg": np.ones(3, np.float32),
    }
    read = load.read(write(tmp_path / "a.safetensors", arrays), **HEADS)
    check(read, params)
    notes = "\n".join(read.notes)
    assert "'module.teacher.backbone.', not under 'module.student.backbone.'" in notes
    for name in ("module.teacher.head.mlp.0.weight", "module.student.* (", "dino_loss.center",
                 "optimizer.exp_avg"):  # fmt: skip
        assert name in notes


@pytest.mark.parametrize(
    ("first", "second"),
    [("ema.", "model."), ("base_encoder.", "momentum_encoder."), ("", "teacher."),
     ("target_encoder.", "encoder."), ("encoder_q.", "encoder_k."),
     ("averaged_model.module.", "model.")],
)  # fmt: skip
def test_of_two_models_the_one_that_its_trainer_evaluates_is_read(
    tmp_path, params, state, first, second
):
    arrays = {first + name: array for name, array in state.items()}
    arrays |= {second + name: array + 1 for name, array in state.items()}
    read = load.read(write(tmp_path / "a.pth", arrays), **HEADS)
    check(read, params)
    assert any(repr(second) in note for note in read.notes)


def test_an_unknown_wrapper_is_removed_with_a_note(tmp_path, params, state):
    arrays = {f"system.my_vit.{name}": array for name, array in state.items()}
    arrays |= {"system.other.weight": np.ones(3, np.float32)}
    read = load.read(write(tmp_path / "a.safetensors", arrays), **HEADS)
    check(read, params)
    assert any("read the model under 'system.my_vit.'" in note for note in read.notes)


def test_arrays_of_the_loss_are_left_out_without_a_wrapper(tmp_path, params, state):
    arrays = state | {"criterion.weight": np.ones(3, np.float32)}
    read = load.read(write(tmp_path / "a.pth", arrays), **HEADS)
    check(read, params)
    assert "left out: criterion.weight" in read.notes


def test_names_that_cannot_be_printed_are_escaped_in_notes(state):
    arrays = {f"model.{name}": array for name, array in state.items()}
    _, notes = wrappers.unwrapped([*arrays, "other\x1b[31m.weight"])
    assert notes == (r"left out: 'other\x1b[31m.weight'",)


def test_two_models_of_equal_rank_are_refused(tmp_path, state):
    arrays = {f"{p}.{name}": array for name, array in state.items() for p in ("encoder", "visual")}
    with pytest.raises(ValueError, match="several models, under 'encoder.', 'visual.'"):
        load.read(write(tmp_path / "a.pth", arrays), **HEADS)


def test_parts_of_the_model_are_never_left_out(tmp_path, state):
    wrapped = {f"model.{name}": array for name, array in state.items()}
    wrapped |= {"criterion.weight": np.ones(3, np.float32)}
    more = wrapped | {"model.blocks.1.extra": np.ones(3, np.float32)}
    with pytest.raises(ValueError, match="unexpected blocks.1.extra"):
        load.read(write(tmp_path / "more.safetensors", more), **HEADS)
    less = {k: v for k, v in wrapped.items() if k != "model.blocks.1.norm1.weight"}
    with pytest.raises(ValueError, match="missing blocks.1.norm1.weight"):
        load.read(write(tmp_path / "less.safetensors", less), **HEADS)
    # A half of the model that lost its prefix is no other module.
    torn = {k.removeprefix("model.") if "blocks.1." in k else k: v for k, v in wrapped.items()}
    with pytest.raises(ValueError, match="'blocks.1.*' is not under 'model.'"):
        load.read(write(tmp_path / "torn.safetensors", torn), **HEADS)
    token = {k.removeprefix("model.") if "cls_token" in k else k: v for k, v in wrapped.items()}
    with pytest.raises(ValueError, match="'cls_token' is not under 'model.'"):
        load.read(write(tmp_path / "token.safetensors", token), **HEADS)
    twice = wrapped | {"model.module.blocks.1.norm1.weight": np.ones(24, np.float32)}
    with pytest.raises(ValueError, match="unexpected module.blocks.1.norm1.weight"):
        load.read(write(tmp_path / "twice.safetensors", twice), **HEADS)


def test_a_head_beside_a_backbone_is_noted(tmp_path, state):
    body = {f"backbone.{k}": v for k, v in state.items() if not k.startswith("head.")}
    arrays = body | {k: v for k, v in state.items() if k.startswith("head.")}
    read = load.read(write(tmp_path / "a.pth", arrays), **HEADS)
    assert read.options.num_classes == 0
    assert any("left out: head.* (2 arrays)" in note for note in read.notes)


def test_the_encoder_prefix_of_hugging_face_is_not_removed(tmp_path, params):
    options = TINY
    model: Any = load.assemble(options, params)
    save.save(model, tmp_path / "plain", layout="hf")
    plain = load.read(tmp_path / "plain")
    arrays = table.write(hf.entries(options), params)
    headless = {k.removeprefix("vit."): v for k, v in arrays.items() if k.startswith("vit.")}
    for i, prefix in enumerate(["", "encoder.", "module.", "model.encoder.", "_orig_mod."]):
        for held, classes in ((arrays, 5), (headless, 0)):
            folder = write(
                tmp_path / f"{i}-{classes}", {prefix + name: a for name, a in held.items()}
            )
            config = (tmp_path / "plain/config.json").read_text()
            (folder / "config.json").write_text(config)
            read = load.read(folder)
            assert read.options.num_classes == classes
            for path, array in read.params.items():
                np.testing.assert_array_equal(array, plain.params[path])
