"""Checkpoints of a run are exact on any mesh, kept as configured, and refused if damaged."""

import dataclasses
import json
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import vit_jax
from tests import cli
from tests.compare import assert_same_bits
from tests.models import tiny
from vit_jax.checkpoints import load, run_folder, store
from vit_jax.config import CheckpointConfig, Config, MeshConfig, default_config, resolve
from vit_jax.errors import RunFailed
from vit_jax.models.preprocessing import Preprocessing
from vit_jax.parallel.mesh import make_mesh
from vit_jax.training import run_config, state

KEEP = CheckpointConfig(keep_last=2, keep_best=1)
ADAM = optax.adam(1e-3, mu_dtype="bfloat16")
OPTIONS = tiny.options(depth=1)
SMALL: dict[str, Any] = {"params": {"a": np.arange(3.0, dtype=np.float32)}, "step": np.int32(0)}


def abstract(mesh: MeshConfig) -> state.State:
    return state.abstract_state(OPTIONS, ADAM, average=True, mesh=make_mesh(mesh))


def filled(shapes: state.State) -> state.State:
    """Random values for every array, with the array's sharding."""
    rng = np.random.default_rng(0)

    def fill(leaf: Any) -> jax.Array:
        return jax.device_put(rng.normal(size=leaf.shape).astype(leaf.dtype), leaf.sharding)

    return jax.tree.map(fill, shapes)


def test_a_state_comes_back_bit_for_bit_on_another_mesh(tmp_path) -> None:
    saved = filled(abstract(MeshConfig(data=1, fsdp=8)))
    assert {leaf.dtype.name for leaf in jax.tree.leaves(saved["opt_state"][0].mu)} == {"bfloat16"}
    with store.Store(tmp_path, KEEP) as checkpoints:
        checkpoints.save(3, saved, {})
    wanted = abstract(MeshConfig(data=2, fsdp=2, tensor=2))
    with store.Store(tmp_path, KEEP) as checkpoints:
        found = checkpoints.restore(wanted, step=checkpoints.find("latest"))
        part = checkpoints.restore({"ema": wanted["ema"]}, step=3)
    assert found.keys() == saved.keys()
    assert part.keys() == {"ema"}
    assert_same_bits(part["ema"], saved["ema"])
    assert_same_bits(found, saved)
    jax.tree.map(lambda a, s: a.sharding == s.sharding or pytest.fail(), found, wanted)


def save_steps(folder: pathlib.Path, top1: list[float | None], **keep: Any) -> store.Store:
    """Saves steps 1, 2, ... with these metrics; returns the closed store."""
    config = CheckpointConfig(**({"keep_last": 2, "keep_best": 1} | keep))
    with store.Store(folder, config) as checkpoints:
        for step, value in enumerate(top1, 1):
            metrics = {} if value is None else {"top1": value, "loss": value}
            checkpoints.save(step, SMALL, metrics)
            checkpoints.wait()
        return checkpoints


def test_without_a_named_metric_the_smallest_loss_is_the_best_where_there_is_no_top1(tmp_path):
    with store.Store(tmp_path, KEEP) as checkpoints:
        checkpoints.save(1, SMALL, {"loss": 2.0})
        assert checkpoints.is_best({"loss": 1.0}) and not checkpoints.is_best({"loss": 3.0})
        assert not checkpoints.is_best({"loss": 2.0}), "as good is not better"
        assert not checkpoints.is_best({})


@pytest.mark.parametrize(
    ("top1", "keep", "kept", "best"),
    [
        ([0.1, 0.5, 0.2, 0.3, 0.4], {}, [2, 4, 5], 2),
        ([0.1, 0.5, 0.2, 0.3, 0.4], {"keep_best": 0}, [4, 5], 5),
        ([0.5, 0.1, 0.2, 0.3, 0.4], {"metric": "loss", "keep_last": 1}, [2, 5], 2),
        ([0.5, None, None], {"keep_last": 1}, [1, 3], 1),
        ([None, None, None], {}, [2, 3], None),
    ],
)
def test_the_last_and_the_best_are_kept(tmp_path, top1, keep, kept, best) -> None:
    save_steps(tmp_path, top1, **keep)
    assert store.saved_steps(tmp_path) == kept
    config = CheckpointConfig(**keep)
    with store.Store(tmp_path, config, read_only=True) as checkpoints:
        assert checkpoints.steps == kept
        assert checkpoints.find("latest") == len(top1)
        assert checkpoints.find("best") == (best or len(top1))
        assert checkpoints.find(kept[0]) == kept[0]
        with pytest.raises(
            ValueError, match=rf"no step 77 in .*checkpoints: there are \[{kept[0]}"
        ):
            checkpoints.find(77)


def test_the_best_is_known_before_it_is_on_disk_and_after_a_restart(tmp_path) -> None:
    with store.Store(tmp_path, KEEP) as checkpoints:
        assert checkpoints.is_best({"top1": 0.0})
        checkpoints.save(1, SMALL, {"top1": 0.5})
        assert not checkpoints.is_best({"top1": 0.5})
        assert checkpoints.is_best({"top1": 0.6})
    with store.Store(tmp_path, KEEP) as checkpoints:
        assert not checkpoints.is_best({"top1": 0.4})


def test_metrics_that_are_added_to_a_checkpoint_count_as_if_it_was_saved_with_them(tmp_path):
    keep = CheckpointConfig(keep_last=1, keep_best=1)
    abstract = store.local_shapes(jax.eval_shape(lambda: jax.tree.map(jnp.asarray, SMALL)))
    with store.Store(tmp_path, keep) as checkpoints:
        for step, metrics in ((1, {"top1": 0.5}), (2, {})):
            checkpoints.save(step, SMALL, metrics)
            checkpoints.wait()
        assert (checkpoints.is_evaluated(2), checkpoints.steps) == (False, [1, 2])
        checkpoints.add_metrics(2, {"top1": 0.6, "count": 7})
        assert (checkpoints.is_evaluated(2), checkpoints.steps) == (True, [2])
        assert not checkpoints.is_best({"top1": 0.6})
    with store.Store(tmp_path, keep) as checkpoints:
        assert (checkpoints.find("best"), checkpoints.notes) == (2, {})
        assert not checkpoints.is_best({"top1": 0.6}) and checkpoints.is_best({"top1": 0.7})
        assert_same_bits(checkpoints.restore(abstract, step=2), SMALL)
    file = tmp_path / "checkpoints/2/metrics/metrics"
    file.write_text(file.read_text().replace("0.6", "0.9"))
    with store.Store(tmp_path, keep, read_only=True) as checkpoints:
        assert "the metrics of checkpoint 2 are damaged" in checkpoints.notes[2]


def test_metrics_that_cannot_be_added_are_one_line_and_the_checkpoint_is_kept(tmp_path) -> None:
    save_steps(tmp_path, [None])
    (tmp_path / "checkpoints/1/metrics").write_text("in the way")
    with store.Store(tmp_path, KEEP) as checkpoints:
        with pytest.raises(RunFailed, match=r"the metrics of checkpoint 1 could not be saved in"):
            checkpoints.add_metrics(1, {"top1": 0.5})
        assert not checkpoints.is_evaluated(1)
    assert store.saved_steps(tmp_path) == [1]


TWO = """
import numpy as np
from vit_jax.parallel import multihost
multihost.initialize()
from vit_jax.checkpoints import store
from vit_jax.config import CheckpointConfig
from vit_jax.errors import RunFailed
small, said = {"params": {"a": np.arange(3.0, dtype=np.float32)}, "step": np.int32(0)}, ""
with store.Store(FOLDER, CheckpointConfig(keep_last=1)) as checkpoints:
    for step, metrics in ((1, {"top1": 0.5}), (2, {})):
        checkpoints.save(step, small, metrics)
        checkpoints.wait()
    checkpoints.add_metrics(2, {"top1": 0.6})
    kept = checkpoints.steps, checkpoints.is_evaluated(2), checkpoints.is_best({"top1": 0.6})
    checkpoints.save(3, small, {})
    checkpoints.wait()
    if multihost.is_primary():
        (checkpoints.path / "3/metrics").write_text("in the way")
    try:
        checkpoints.add_metrics(3, {"top1": 0.7})
    except RunFailed as error:
        said = str(error)
print("result", kept, "could not be saved" in said, checkpoints.is_best({"top1": 0.61}))
"""


def test_two_processes_add_metrics_or_fail_together(tmp_path) -> None:
    program = TWO.replace("FOLDER", repr(str(tmp_path)))
    for ended in cli.two_processes(program, devices=1):
        assert "result ([2], True, False) True True" in ended.stdout, ended.stderr
    assert store.saved_steps(tmp_path) == [2, 3]


def test_a_reader_writes_and_removes_nothing(tmp_path) -> None:
    save_steps(tmp_path, [None, None, None], keep_last=3)
    folder = tmp_path / "checkpoints"
    (folder / "4.orbax-checkpoint-tmp-99").mkdir()  # being written
    before = sorted(path for path in tmp_path.rglob("*"))
    with store.Store(tmp_path, KEEP, read_only=True) as checkpoints:
        assert checkpoints.steps == [1, 2, 3]
    assert sorted(path for path in tmp_path.rglob("*")) == before
    empty = tmp_path / "empty"
    with store.Store(empty, KEEP, read_only=True) as checkpoints:
        assert checkpoints.steps == []
    assert not empty.exists()


def test_a_half_written_checkpoint_is_not_visible(tmp_path) -> None:
    save_steps(tmp_path, [None, None])
    half = tmp_path / "checkpoints" / "3.orbax-checkpoint-tmp"
    half.mkdir()
    (half / "junk").write_text("half")
    assert store.saved_steps(tmp_path) == [1, 2]
    with store.Store(tmp_path, KEEP) as checkpoints:
        assert checkpoints.find("latest") == 2
        checkpoints.save(3, SMALL, {})
        checkpoints.wait()
        assert checkpoints.find("latest") == 3
    assert not half.exists()


@pytest.mark.parametrize("name", ["²", "٣", "007", "old_7", "-3"])
def test_a_folder_beside_the_checkpoints_is_no_step(tmp_path, name) -> None:
    save_steps(tmp_path, [None, None])
    other = tmp_path / "checkpoints" / name
    other.mkdir()
    (other / "commit_success.txt").write_text("other")
    assert store.saved_steps(tmp_path) == [1, 2]
    with store.Store(tmp_path, KEEP, read_only=True) as checkpoints:
        assert checkpoints.find("latest") == 2


def make_config(**changes: Any) -> Config:
    config = default_config()
    config.model.name = "Ti/16"
    config.update_from_flattened_dict(changes)
    return resolve(config)


def make_card() -> run_folder.Card:
    return run_folder.Card(
        options=OPTIONS,
        class_names=("a", "b", "c", "d", "e"),
        preprocessing=Preprocessing(image_size=OPTIONS.image_size, interpolation="linear"),
    )


def test_a_run_describes_itself(tmp_path) -> None:
    config = make_config(batch_size=8)
    assert not run_folder.is_run(tmp_path)
    run_config.check_same_run(tmp_path, config)
    run_config.write_run(tmp_path / "run", config, make_card())
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == [
        "config.json",
        "model.json",
    ]
    assert run_folder.is_run(tmp_path / "run")
    assert run_config.read_config(tmp_path / "run") == config
    assert run_folder.read_card(tmp_path / "run") == make_card()
    run_config.check_same_run(tmp_path / "run", config)


def test_a_run_of_another_config_names_what_differs(tmp_path) -> None:
    run_config.write_run(tmp_path, make_config(), make_card())
    other = {"optimizer.learning_rate": 0.5, "image_size": (32, 32), "mesh.fsdp": 2}
    with pytest.raises(ValueError, match="holds a run with another config") as error:
        run_config.check_same_run(tmp_path, make_config(**other))
    message = str(error.value)
    assert "optimizer.learning_rate is 0.001 there and 0.5 here" in message
    assert "image_size is (224, 224) there and (32, 32) here" in message
    assert "fsdp" not in message
    assert "use another --workdir, or the same config to resume" in message


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("mesh.fsdp", 4),
        ("log_every.steps", 7),
        ("checkpoint.keep_last", 9),
        ("data.threads", 3),
        ("model.remat", "full"),
        ("model.unroll", 4),
        ("eval_batch_size", 8),
    ],
)
def test_fields_that_do_not_change_the_result_may_change(tmp_path, field, value) -> None:
    run_config.write_run(tmp_path, make_config(), make_card())
    run_config.check_same_run(tmp_path, make_config(**{field: value}))


def test_a_run_is_loaded_with_its_average(tmp_path) -> None:
    run = tmp_path / "run"
    card = dataclasses.replace(make_card(), average=True)
    run_config.write_run(run, make_config(ema=0.9), card)
    saved = filled(abstract(MeshConfig()))
    with store.Store(run, KEEP) as checkpoints:
        checkpoints.save(1, saved, {})
    model = vit_jax.load(run)
    np.testing.assert_array_equal(model.head.kernel[...], saved["ema"]["head"]["kernel"])
    assert model.class_names == ("a", "b", "c", "d", "e")
    assert model.preprocessing == make_card().preprocessing
    larger = vit_jax.load(run, image_size=(32, 24), num_classes=2)
    assert larger.class_names == ()
    assert larger.preprocessing is not None
    assert larger.preprocessing.image_size == (32, 24)
    assert jax.eval_shape(larger, tiny.images(size=(32, 24))).shape == (2, 2)


def test_folders_that_are_not_runs_are_refused(tmp_path) -> None:
    with pytest.raises(ValueError, match=r"is not a run: it has no model.json"):
        run_folder.read_card(tmp_path)
    with pytest.raises(ValueError, match=r"is not a run: it has no config.json"):
        run_config.read_config(tmp_path)
    (tmp_path / "model.json").write_text(json.dumps({"options": {}})[:-1])
    with pytest.raises(ValueError, match=r"model.json is damaged: .*: restore it, or start anew"):
        run_folder.read_card(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="cannot write to the workdir"):
        run_config.write_run(tmp_path / "file", make_config(), make_card())


def test_a_run_without_a_checkpoint_says_so(tmp_path) -> None:
    run_config.write_run(tmp_path, make_config(), make_card())
    with pytest.raises(ValueError, match="no finished checkpoint in .*: train first"):
        load.read(tmp_path)
