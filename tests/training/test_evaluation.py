"""Evaluation counts every example once, on any mesh, and equals plain NumPy."""

import csv
import json
import pathlib

import jax
import numpy as np
import pytest
from pyarrow import parquet

import vit_jax
from tests import cli, runs
from vit_jax.checkpoints import load, run_folder
from vit_jax.data.arrays import open_embedded


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> pathlib.Path:
    folder = tmp_path_factory.mktemp("evaluation")
    overrides = ["--config.checkpoint.every.steps=2", "--config.evaluate_every.steps=4"]
    recipe, workdir = runs.write_recipe(folder), folder / "run"
    assert cli.train(recipe, workdir, *overrides) == 0
    return workdir


@pytest.fixture
def evaluate(run, printed):
    def call(*arguments: str) -> dict[str, float]:
        return json.loads(printed("evaluate", "--workdir", run, "--json", *arguments))

    return call


def by_numpy(model) -> dict[str, float]:
    """top1, top5 and loss over all test images, in double precision."""
    source = open_embedded("test")
    images = np.repeat(source.images[..., None], 3, axis=-1).astype(np.float32) / 127.5 - 1
    logits = np.asarray(jax.jit(lambda x: model(x))(images)).astype(np.float64)
    order = np.argsort(-logits, axis=1, kind="stable")
    hits = order == source.labels[:, None]
    chosen = logits[np.arange(len(logits)), source.labels]
    top = logits.max(axis=1)
    losses = top + np.log(np.exp(logits - top[:, None]).sum(axis=1)) - chosen
    return {
        "top1": hits[:, 0].mean(),
        "top5": hits[:, :5].any(axis=1).mean(),
        "loss": losses.mean(),
    }


def of(model: str, run: pathlib.Path) -> dict[str, np.ndarray]:
    """The saved `params` or `ema` by path."""
    found = runs.arrays(run).items()
    return {n.removeprefix(f"{model}/"): a for n, a in found if n.startswith(f"{model}/")}


def test_both_models_equal_numpy_over_every_example(run, evaluate) -> None:
    """5000 images, batches of 512."""
    found = evaluate()
    assert found["step"] == 6
    assert found["count"] == 5000
    for saved, prefix in (("params", ""), ("ema", "ema_")):
        model = load.assemble(run_folder.read_card(run).options, of(saved, run))
        for name, value in by_numpy(model).items():
            assert found[prefix + name] == pytest.approx(value, rel=1e-5)
    assert found["loss"] != found["ema_loss"]


def test_load_takes_the_average(run) -> None:
    kernel = np.asarray(vit_jax.load(run).head.kernel[...])
    assert kernel.tobytes() == of("ema", run)["head/kernel"].tobytes()
    assert kernel.tobytes() != of("params", run)["head/kernel"].tobytes()


@pytest.mark.parametrize(
    "overrides",
    [
        ("--config.mesh.data=2", "--config.mesh.fsdp=4"),
        ("--config.mesh.data=4", "--config.mesh.tensor=2", "--config.eval_batch_size=999"),
    ],
)
def test_mesh_and_batch_size_do_not_matter(evaluate, overrides) -> None:
    assert evaluate(*overrides) == pytest.approx(evaluate(), rel=1e-6)


def test_a_mesh_that_does_not_fit_the_devices_at_hand_is_replaced(evaluate) -> None:
    """A run of 64 chips is evaluated on a workstation."""
    assert evaluate("--config.mesh.data=64")["count"] == 5000


def test_latest_best_and_numbered_steps(run, evaluate) -> None:
    """Evaluated in training after steps 4 and 6."""
    logged = {n["step"]: n for n in runs.lines(run) if "eval_loss" in n}
    best = max(logged, key=lambda step: logged[step]["eval_top1"])
    assert [evaluate("--step", which)["step"] for which in ("latest", "best")] == [6, best]
    assert evaluate("--step", "4") == pytest.approx(
        {name.removeprefix("eval_"): value for name, value in logged[4].items()}, rel=1e-6
    )


def test_a_run_resumed_with_another_metric_has_another_best_checkpoint(tmp_path, printed) -> None:
    """For the run, for `evaluate` and for `load`: model.json names the new metric."""
    recipe, workdir = runs.write_recipe(tmp_path), tmp_path / "run"
    every = ["--config.evaluate_every.steps=1", "--config.checkpoint.keep_last=9"]
    first = ("--config.total.steps=2", "--config.checkpoint.metric=loss")
    assert cli.train(recipe, workdir, *every, *first) == 0
    then = ("--config.total.steps=4", "--config.checkpoint.metric=ema_loss")
    assert cli.train(recipe, workdir, *every, *then) == 0
    card = run_folder.read_card(workdir)
    assert (card.metric, card.better) == ("ema_loss", "min")
    command = ("evaluate", "--workdir", workdir, "--json", "--step", "best")
    step = json.loads(printed(*command))["step"]
    losses = {n["step"]: n["eval_ema_loss"] for n in runs.lines(workdir) if "eval_ema_loss" in n}
    assert losses[step] == min(losses.values())
    kernel = np.asarray(vit_jax.load(workdir, step="best").head.kernel[...])
    np.testing.assert_array_equal(kernel, runs.arrays(workdir, step=step)["ema/head/kernel"])
    printed(*command, "--config.checkpoint.metric=top1")


def test_the_result_in_one_line_for_people(run, evaluate, printed) -> None:
    line = printed("evaluate", "--workdir", run)
    found = evaluate()
    models = [
        f"{name}top-1 {100 * found[key + 'top1']:.2f}%,"
        f" {name}top-5 {100 * found[key + 'top5']:.2f}%, {name}loss {found[key + 'loss']:.4f},"
        f" {name}ece {found[key + 'ece']:.4f}"
        for name, key in (("", ""), ("average ", "ema_"))
    ]
    assert line == f"{run}, step 6: {', '.join(models)} on 5000 images\n"


def test_the_answers_for_each_image_give_the_metrics(run, evaluate, tmp_path) -> None:
    """They are those of the average, which `load` and `predict` use too."""
    files = {name: tmp_path / name for name in ("p.csv", "p.parquet", "m.csv")}
    found = evaluate("--predictions", files["p.csv"], "--per-class", "--confusion", files["m.csv"])
    with files["p.csv"].open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["image"] for row in rows] == [str(i) for i in range(5000)]
    assert {row["status"] for row in rows} == {"ok"}
    hits = [row["predicted"] == row["label"] for row in rows]
    assert np.mean(hits) == pytest.approx(found["ema_top1"]) != pytest.approx(found["top1"])
    names = ["predicted", *(f"predicted_{rank}" for rank in range(2, 6))]
    top5 = [row["label"] in {row[name] for name in names} for row in rows]
    assert np.mean(top5) == pytest.approx(found["ema_top5"])
    best = [float(row["probability"]) for row in rows]
    second = [float(row["probability_2"]) for row in rows]
    assert all(0 < low <= high <= 1 for low, high in zip(second, best, strict=True))
    of_class = [hit for row, hit in zip(rows, hits, strict=True) if row["label"] == "bag"]
    (bag,) = [row for row in found["per_class"] if row["class"] == "bag"]
    assert bag == {"class": "bag", "images": 500, "top1": pytest.approx(np.mean(of_class))}
    counts = np.array(found["confusion"]["images"])
    assert counts.trace() == sum(hits) and (counts.sum(axis=1) == 500).all()
    with files["m.csv"].open(newline="") as file:
        header, *matrix = csv.reader(file)
    assert header == ["label", *found["confusion"]["classes"]]
    assert [[int(n) for n in row[1:]] for row in matrix] == counts.tolist()
    evaluate("--predictions", files["p.parquet"])
    again = parquet.read_table(files["p.parquet"]).to_pylist()
    assert [row["predicted"] for row in again] == [row["predicted"] for row in rows]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--predictions", "answers.txt"], "must end in .csv or .parquet"),
        (["--predictions", "no/folder/answers.csv"], "there is no folder no/folder"),
        (["--confusion"], "--confusion needs a FILE.csv to write the matrix to, or --json"),
    ],
)
def test_a_file_that_cannot_be_written_is_refused(run, refused, arguments, said) -> None:
    assert said in refused("evaluate", "--workdir", run, *arguments)


def test_evaluation_writes_nothing(run, evaluate) -> None:
    """Not even where a save is under way: its temporary folder stays."""
    (run / "checkpoints" / "8.orbax-checkpoint-tmp").mkdir()
    (run / "checkpoints" / "8.orbax-checkpoint-tmp" / "part").write_text("of a checkpoint")
    before = runs.listing(run)
    evaluate()
    vit_jax.load(run)
    assert runs.listing(run) == before
