"""What processes compare before they start: the config, the code, and what the data are."""

import pathlib
import shutil

import jax
import numpy as np
import pytest

import vit_jax
from vit_jax.config import Config, DataConfig
from vit_jax.data.identity import Part, identify
from vit_jax.data.sources import FolderData
from vit_jax.parallel import agreement
from vit_jax.training import facts, run_config


def test_every_field_is_compared_that_is_not_a_hosts_own(tmp_path) -> None:
    config = Config(data=DataConfig(source=FolderData(path="here")))
    found = facts.of_start(config, tmp_path)
    fields = set(run_config.flat(config))
    assert {f"config.{name}" for name in fields - set(facts.OWN)} <= set(found)
    assert not {f"config.{name}" for name in facts.OWN} & set(found)
    other = Config(data=DataConfig(source=FolderData(path="elsewhere"), threads=3), init_from="x")
    assert facts.of_start(other, tmp_path) == found


def test_other_code_is_named_by_its_file(tmp_path, monkeypatch) -> None:
    here = facts.of_start(Config(), tmp_path)
    folder = shutil.copytree(pathlib.Path(vit_jax.__file__).parent, tmp_path / "vit_jax")
    monkeypatch.setattr(vit_jax, "__file__", str(folder / "__init__.py"))
    assert facts.of_start(Config(), tmp_path) == here
    with (folder / "training" / "step.py").open("a") as file:
        file.write("# another version\n")
    said = agreement.differences([here, facts.of_start(Config(), tmp_path)])
    assert said.startswith(
        "the processes of this job differ: the content of vit_jax/training/step.py is "
    )


def test_other_settings_of_jax_are_found(tmp_path) -> None:
    here = facts.of_start(Config(), tmp_path)
    with jax.default_matmul_precision("bfloat16"):
        said = agreement.differences([here, facts.of_start(Config(), tmp_path)])
    assert "jax_default_matmul_precision is None in process 0 and 'bfloat16' in process 1" in said


def test_a_process_that_sees_another_workdir_is_found(tmp_path) -> None:
    (tmp_path / "a" / "checkpoints" / "7").mkdir(parents=True)
    (tmp_path / "a" / "checkpoints" / "7" / "_CHECKPOINT_METADATA").write_text("{}")
    seen = [facts.of_start(Config(), tmp_path / name) for name in ("a", "b")]
    assert "the list of checkpoints in the workdir is [7] in process 0 and [] in process 1" in (
        agreement.differences(seen)
    )


@pytest.mark.parametrize("what", ["examples", "digest", "names", "nothing"])
def test_other_data_are_found(what) -> None:
    here = Part(examples=4, digest="aa")
    there = {"examples": Part(examples=5, digest="aa"), "digest": Part(examples=4, digest="bb")}
    identities = [
        identify("image_folder", class_names=("x",), parts={"x": here}),
        identify(
            "image_folder",
            class_names=("y",) if what == "names" else ("x",),
            parts={"x": there.get(what, here)},
        ),
    ]
    said = agreement.differences([facts.of_data({"train": found}) for found in identities])
    assert bool(said) == (what != "nothing")


def test_other_parameters_to_start_from_are_found() -> None:
    params = {"head/kernel": np.ones((2, 3), np.float32), "cls": np.zeros(4, np.float32)}
    other = {**params, "cls": np.full(4, 1e-30, np.float32)}
    assert facts.of_parameters(params) == facts.of_parameters(dict(reversed(params.items())))
    assert facts.of_parameters(params) != facts.of_parameters(other)
    assert facts.of_parameters(None) == {}
