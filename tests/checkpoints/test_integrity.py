"""Damaged checkpoints are detected and named, and the previous checkpoint is used."""

import json
import os
import pathlib
import random
import shutil
from typing import Any

import jax
import numpy as np
import pytest
from etils import epath

from tests.compare import assert_same_bits
from vit_jax.checkpoints import fallback, integrity, store
from vit_jax.config import CheckpointConfig

KEEP = CheckpointConfig(keep_last=3, keep_best=1)
STEPS = (1, 2, 3)
ITEMS = ("params", "ema", "rest", "metrics")


def state(step: int) -> dict[str, Any]:
    rng = np.random.default_rng(step)
    params = {"a": rng.normal(size=(64, 32)).astype(np.float32), "b": np.float32(step)}
    return {"params": params, "ema": {"a": params["a"] + 1}, "step": np.int32(step)}


ABSTRACT = store.local_shapes(jax.eval_shape(lambda: jax.tree.map(jax.numpy.asarray, state(0))))


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> pathlib.Path:
    """A run whose best checkpoint is step 2."""
    folder = tmp_path_factory.mktemp("saved")
    with store.Store(folder, KEEP) as checkpoints:
        for step, top1 in zip(STEPS, (0.1, 0.9, 0.5), strict=True):
            checkpoints.save(step, state(step), {"top1": top1})
            checkpoints.wait()
    return folder


@pytest.fixture
def run(saved, tmp_path) -> pathlib.Path:
    return pathlib.Path(shutil.copytree(saved, tmp_path / "run"))


def folder_of(run: pathlib.Path, step: int) -> pathlib.Path:
    return run / "checkpoints" / str(step)


def files_of(run: pathlib.Path, step: int, part: str = "") -> list[pathlib.Path]:
    """The files of a step that are not empty, without the file that marks its commit."""
    found = sorted(path for path in folder_of(run, step).rglob("*") if path.is_file())
    marker = folder_of(run, step) / "commit_success.txt"
    return [p for p in found if part in str(p) and p.stat().st_size and p != marker]


def read(run: pathlib.Path, which: store.Which = "latest") -> fallback.Restored:
    with store.Store(run, KEEP, read_only=True) as checkpoints:
        return fallback.restore(checkpoints, ABSTRACT, which, substitute=True)


def flip(path: pathlib.Path, rng: random.Random) -> None:
    data = bytearray(path.read_bytes())
    data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    path.write_bytes(data)


def test_a_flipped_bit_is_found_in_every_file(run) -> None:
    folder = epath.Path(folder_of(run, 3))
    rng = random.Random(0)
    for path in files_of(run, 3):
        before = path.read_bytes()
        for _ in range(10):
            flip(path, rng)
            with pytest.raises(integrity.Damaged):
                integrity.verify(folder, step=3, items=ITEMS)
            path.write_bytes(before)
        assert integrity.verify(folder, step=3, items=ITEMS)


def test_processes_divide_the_work_between_them(run) -> None:
    folder = epath.Path(folder_of(run, 3))
    flip(files_of(run, 3, "/d/")[0], random.Random(0))
    found = []
    for share in ((0, 3), (1, 3), (2, 3)):
        try:
            integrity.verify(folder, step=3, items=ITEMS, share=share)
        except integrity.Damaged:
            found.append(share)
    assert len(found) == 1


def size(path: pathlib.Path) -> int:
    return path.stat().st_size


def flipped(run: pathlib.Path, rng: random.Random) -> None:
    flip(rng.choice(files_of(run, 3, "/d/")), rng)


def truncated(run: pathlib.Path, rng: random.Random) -> None:
    path = rng.choice(files_of(run, 3, "/params/"))
    path.write_bytes(path.read_bytes()[:-1])


def deleted(run: pathlib.Path, rng: random.Random) -> None:
    rng.choice(files_of(run, 3, "/ema/")).unlink()


def zeroed(run: pathlib.Path, rng: random.Random) -> None:
    path = max(files_of(run, 3, "/d/"), key=size)
    path.write_bytes(bytes(size(path)))


def swapped(run: pathlib.Path, rng: random.Random) -> None:
    ours, theirs = (max(files_of(run, s, "/params/ocdbt"), key=size) for s in (3, 2))
    shutil.copy(theirs, ours)


def item_gone(run: pathlib.Path, rng: random.Random) -> None:
    shutil.rmtree(folder_of(run, 3) / "rest")


def emptied(run: pathlib.Path, rng: random.Random) -> None:
    shutil.rmtree(folder_of(run, 3))
    folder_of(run, 3).mkdir()


def mislabelled(run: pathlib.Path, rng: random.Random) -> None:
    shutil.rmtree(folder_of(run, 3))
    shutil.copytree(folder_of(run, 1), folder_of(run, 3))


def mislabelled_without_checksums(run: pathlib.Path, rng: random.Random) -> None:
    mislabelled(run, rng)
    (folder_of(run, 3) / integrity.NAME).unlink()


DAMAGES = (
    *(flipped, truncated, deleted, zeroed, swapped, item_gone, emptied),
    *(mislabelled, mislabelled_without_checksums),
)


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_a_damaged_step_is_named_and_the_previous_one_is_used(run, damage) -> None:
    damage(run, random.Random(0))
    with pytest.raises(ValueError, match=r"the checkpoint .*/3 is damaged: ") as error:
        read(run, 3)
    assert "use another step (there are [1, 2, 3])" in str(error.value)
    assert "\n" not in str(error.value)
    with (
        store.Store(run, KEEP, read_only=True) as checkpoints,
        pytest.raises(ValueError, match=r"the checkpoint .*/3 is damaged: "),
    ):
        fallback.restore(checkpoints, ABSTRACT, "latest", substitute=False)
    found = read(run)
    assert found.step == 2
    assert_same_bits(found.state, state(2))
    assert found.damaged == (3,)
    assert found.notes[0].startswith("checkpoint 3 is damaged: ")
    assert found.notes[1] == "checkpoint 2 is used instead"
    assert len(found.notes) == 2


@pytest.mark.parametrize(
    "name",
    [
        *("params/../../x", "params/./x", "params//x", "/x", "x/", "metrics/../x", ""),
        *("ema/../../../../../../../../../../../../dev/zero", "a\0", "ema/\ud800", "a\nb"),
    ],
)
def test_a_name_in_the_checksums_that_is_no_file_of_the_step_is_damage(run, name) -> None:
    path = folder_of(run, 3) / integrity.NAME
    held = json.loads(path.read_text())
    held["files"][name] = [1, "x"]
    path.write_text(json.dumps(held))
    with pytest.raises(ValueError, match=r"/3 is damaged: checksums.json is damaged: '") as error:
        read(run, 3)
    assert "\n" not in str(error.value) and str(error.value).encode()


@pytest.mark.parametrize("item", ["params", "rest"])
def test_a_name_in_the_checksums_that_is_too_long_is_damage(run, item) -> None:
    path = folder_of(run, 3) / integrity.NAME
    held = json.loads(path.read_text())
    held["files"][f"{item}/{'a' * 300}"] = [1, "x"]
    path.write_text(json.dumps(held))
    with pytest.raises(integrity.Damaged, match="too long"):
        integrity.verify(epath.Path(folder_of(run, 3)), step=3, items=("params",))


def test_a_file_of_another_size_is_damage_before_its_content_is_read(run, monkeypatch) -> None:
    path = files_of(run, 3, "/params/")[0]
    size = path.stat().st_size
    os.truncate(path, 2**40)  # a file with a hole, which takes an hour to read
    monkeypatch.setattr(integrity, "_checksums", pytest.fail)
    with pytest.raises(integrity.Damaged, match=f" has {2**40} bytes, {size} were saved"):
        integrity.verify(epath.Path(folder_of(run, 3)), step=3, items=("params",))


def test_a_damaged_best_checkpoint_has_a_substitute(run) -> None:
    flip(files_of(run, 2, "/params/")[0], random.Random(0))
    assert read(run, "best").step == 3
    assert read(run).step == 3


def test_damaged_metrics_are_named_and_ignored(run) -> None:
    metrics = folder_of(run, 2) / "metrics" / "metrics"
    metrics.write_text(metrics.read_text().replace("0.9", "0.8"))
    found = read(run, "best")
    assert found.step == 3
    assert found.notes[0].startswith("the metrics of checkpoint 2 are damaged (metrics/metrics is")
    assert read(run, 2).step == 2
    shutil.rmtree(metrics.parent)
    assert "metrics/commit_success.txt is missing" in read(run, "best").notes[0]
    metrics.parent.mkdir()
    metrics.write_text("{")
    (folder_of(run, 2) / integrity.NAME).unlink()
    assert read(run, "best").step == 3
    with store.Store(run, KEEP) as checkpoints:
        checkpoints.save(4, state(4), {"top1": 0.6})
        checkpoints.wait()
        assert checkpoints.find("best") == 4


def test_if_all_checkpoints_are_damaged_all_are_named(run) -> None:
    for step in STEPS:
        flip(files_of(run, step, "/params/")[0], random.Random(0))
    before = sorted(run.rglob("*"))
    with pytest.raises(ValueError, match=r"all checkpoints in .* are damaged \(3: .*; 2: .*; 1: "):
        fallback.resume(run, KEEP, ABSTRACT)
    assert sorted(run.rglob("*")) == before


def test_a_damaged_step_is_renamed_and_saved_again(run) -> None:
    for copy in ("3.damaged", "3.damaged-2"):
        flip(files_of(run, 3, "/params/")[0], random.Random(0))
        found = fallback.resume(run, KEEP, ABSTRACT)
        assert found.step == 2
        ((folder, aside),) = fallback.put_aside(run, found)
        assert (folder.name, aside.name) == ("3", copy)
        fallback.move(folder, aside)
        with store.Store(run, KEEP) as checkpoints:
            assert checkpoints.steps == [1, 2]
            checkpoints.save(3, state(3), {"top1": 0.1})
            checkpoints.wait()
            assert checkpoints.steps == [1, 2, 3]
        assert (run / "checkpoints" / copy / integrity.NAME).exists()
        assert read(run).step == 3


def test_a_checkpoint_without_checksums_is_read_with_a_note(run) -> None:
    (folder_of(run, 3) / integrity.NAME).unlink()
    found = read(run)
    assert found.step == 3
    assert found.notes == (
        "checkpoint 3 was saved without checksums: damage to it may go unnoticed",
    )


def test_an_intact_checkpoint_of_another_model_is_not_called_damaged(run) -> None:
    other = {"params": {"c": ABSTRACT["params"]["a"]}}
    with (
        store.Store(run, KEEP, read_only=True) as checkpoints,
        pytest.raises(ValueError, match="is not damaged, but cannot be read"),
    ):
        fallback.restore(checkpoints, other, "latest", substitute=True)
