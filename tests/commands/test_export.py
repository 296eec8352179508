"""`export`: a folder that runs without this package, equal to the model, or nothing."""

import csv
import hashlib
import importlib.util
import io
import json
import os
import pathlib
import shutil
import struct
import zlib
from types import ModuleType

import numpy as np
import PIL.Image
import pytest

import vit_jax
from tests import cli, runs
from tests.compare import assert_close, assert_same_bits
from tests.models import tiny
from vit_jax.checkpoints.save import params_of
from vit_jax.commands.classifying import classify
from vit_jax.data import crops
from vit_jax.data.crops import center_crop
from vit_jax.export import folder, parity
from vit_jax.images import read_pixels, transform_of
from vit_jax.models.decoder import DecoderOptions
from vit_jax.models.preprocessing import Preprocessing

pytest.importorskip("flatbuffers", reason="jax.export writes files with it")

# Serves the model of a folder and asks it, where this package cannot be imported.
ALONE = """
import http.client, json, pathlib, sys, threading
sys.modules["vit_jax"] = None
sys.path.insert(0, sys.argv[1])
import serve
server = serve.http.server.HTTPServer(("127.0.0.1", 0), serve.Handler)
threading.Thread(target=server.serve_forever, daemon=True).start()
for content in (pathlib.Path(sys.argv[2]).read_bytes(), b"no image"):
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port)
    connection.request("POST", "/", content)
    response = connection.getresponse()
    print(response.status, response.read().decode())
"""


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> pathlib.Path:
    return tiny.saved(tmp_path_factory.mktemp("model"), image_size=(16, 24))


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> pathlib.Path:
    root, rng = tmp_path_factory.mktemp("images"), np.random.default_rng(0)
    for number in range(6):
        (root / str(number % 3)).mkdir(exist_ok=True)
        pixels = rng.integers(0, 256, (40, 50, 3), dtype=np.uint8)
        PIL.Image.fromarray(pixels).save(root / str(number % 3) / f"{number}.png")
    return root


@pytest.fixture(scope="module")
def exported(model, images, tmp_path_factory) -> pathlib.Path:
    target = tmp_path_factory.mktemp("exported") / "out"
    assert cli.run("export", model, target, "--images", images, "--not-for", "<b>racing</b>") == 0
    return target


def runtime() -> ModuleType:
    spec = importlib.util.spec_from_file_location("runtime", folder.STANDALONE / "runtime.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_process_without_this_package_serves_what_the_model_answers(
    exported, model, images
) -> None:
    image = images / "0" / "0.png"
    ended = cli.process(exported, image, program=(*cli.PYTHON, "-c", ALONE))
    assert ended.returncode == 0, ended.stderr
    good, bad = [line.split(" ", 1) for line in ended.stdout.splitlines()]
    loaded = vit_jax.load(model)
    pixels = read_pixels(image, transform_of(loaded))
    best = classify(loaded, top=5, names=list("01234"))(pixels[None])[0]
    found = json.loads(good[1])["classes"]
    assert (good[0], [name for name, _ in found]) == ("200", [name for name, _ in best])
    assert_close([p for _, p in found], [p for _, p in best])
    assert bad[0] == "400" and "cannot decode" in json.loads(bad[1])["error"]


def test_all_files_have_the_mode_of_those_that_the_user_makes(exported, tmp_path) -> None:
    (tmp_path / "own").touch()
    modes = {path.name: path.stat().st_mode for path in exported.iterdir()}
    assert set(modes.values()) == {(tmp_path / "own").stat().st_mode}, modes


def test_the_folder_says_what_it_is_and_how_equal(exported, model) -> None:
    sums = dict(line.split("  ")[::-1] for line in (exported / folder.DIGESTS).open())
    for path in set(exported.iterdir()) - {exported / folder.DIGESTS}:
        assert sums[f"{path.name}\n"] == hashlib.sha256(path.read_bytes()).hexdigest()
    report = json.loads((exported / "parity.json").read_text())
    assert report["images"]["number"] == 6
    found = report["programs"]["program.stablehlo"]
    assert found["same_class"] == 1 and found["top1"] == report["models"]["16x24"]["top1"]
    assert parity.relative(found) <= found["bound"]["relative"] == 1e-5
    card = json.loads((exported / "card.json").read_text())
    assert card["input"] == {"dtype": "uint8", "shape": ["batch", 16, 24, 3]}
    assert card["not_for"][0] == "<b>racing</b>"
    page = (exported / "README.md").read_text()
    assert "<b>" not in page and "racing" in page and "16 x 24 pixels" in page


@pytest.mark.parametrize("interpolation", ["area", "linear", "bicubic_antialias", "nearest"])
@pytest.mark.parametrize("fit", ["crop", "crop_floor", "squash"])
@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("large", [crops.LARGE, 0])  # 0: only the kept part is computed
def test_the_runtime_prepares_images_as_this_package(
    interpolation, fit, channels, large, monkeypatch
) -> None:
    rng, alone = np.random.default_rng(0), runtime()
    assert crops.LARGE == alone.LARGE
    monkeypatch.setattr(crops, "LARGE", large)
    alone.LARGE = large
    for size in ((61, 47), (20, 90), (9, 11), (9, 400), (300, 20)):
        image = rng.integers(0, 256, (*size, channels), dtype=np.uint8)
        ours = center_crop(image, (16, 24), share=0.85, interpolation=interpolation, fit=fit)
        theirs = alone.center_crop(
            image, image_size=(16, 24), crop_pct=0.85, interpolation=interpolation, fit=fit
        )
        difference = np.abs(theirs.astype(int) - ours).max()
        assert difference <= (0 if large or interpolation not in ("area", "linear") else 1)


# Crops a line of pixels, and prints the memory that it takes in KB.
LINE = """
import resource, sys
import numpy as np
sys.path.insert(0, sys.argv[1])
import runtime
line = np.arange(3 * 60_000, dtype=np.uint8).reshape(1, 60_000, 3)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for interpolation in ("area", "linear", "bicubic_antialias", "nearest"):
    how = {"image_size": (224, 224), "crop_pct": 0.875, "interpolation": interpolation}
    assert runtime.center_crop(line, fit="crop", **how).shape == (224, 224, 3)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def test_the_runtime_reads_a_line_of_pixels_in_little_memory() -> None:
    """It would have 16 GB at the height of the model."""
    done = cli.process(folder.STANDALONE, program=(*cli.PYTHON, "-c", LINE))
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 300_000  # KB


def png(width: int, height: int) -> bytes:
    """A file of black pixels of one bit, written row by row: it may be huge."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        checksum = zlib.crc32(kind + data)
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", checksum)

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0))
    pixels = chunk(b"IDAT", zlib.compress(bytes((width + 7) // 8 + 1) * height))
    return b"\x89PNG\r\n\x1a\n" + header + pixels + chunk(b"IEND", b"")


def test_the_runtime_refuses_what_would_fill_the_memory_or_start_a_program(
    exported, tmp_path, monkeypatch
) -> None:
    program, called = tmp_path / "gs", tmp_path / "called"  # Pillow would start it for EPS
    program.write_text(f"#!/bin/sh\ntouch {called}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setattr("PIL.EpsImagePlugin.gs_binary", None)  # it was looked for before
    eps = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n%%EOF\n"
    alone = runtime().Model(exported)
    for data, reason in (
        (eps, "its format is unknown"),
        (png(20_000, 20_000), "exceeds limit"),
        (png(9_000, 9_000)[:4_000], "81,000,000 pixels in a file of 4,000 bytes are too many"),
        (png(20, 20)[:45], "."),
    ):
        with pytest.raises(ValueError, match=f"cannot decode the image: .*{reason}"):
            alone.read(data)
    assert not called.exists()
    assert alone.read(png(1, 20_000)).shape == (16, 24, 3)


def test_a_masked_autoencoder_has_features_and_is_read_back_bit_for_bit(
    tmp_path, printed, refused
) -> None:
    made = tiny.saved(
        tmp_path,
        image_size=(16, 24),
        class_token=True,
        num_classes=0,
        fixed_position=True,
        decoder=DecoderOptions(width=16, depth=1, mlp_dim=32, num_heads=2),
    )
    target = tmp_path / "out"
    printed("export", made, target, "--format", "safetensors")
    there, here = vit_jax.load(made), vit_jax.load(target)
    assert (there.options, there.preprocessing) == (here.options, here.preprocessing)
    assert_same_bits(params_of(here), params_of(there))
    assert "it has no classes" in (target / "README.md").read_text()
    printed("export", made, tmp_path / "program")
    alone = runtime().Model(tmp_path / "program")
    features = alone(np.zeros((1, 16, 24, 3), np.uint8))["features"]
    assert features.shape == (1, here.options.feature_size)
    with pytest.raises(ValueError, match="the model has no classes"):
        alone.classify(np.zeros((16, 24, 3), np.uint8))
    for more in (["--batch", 2], ["--dtype", "bfloat16"], ["--image-size", 16] * 2):
        line = refused("export", made, tmp_path / "new", "--format", "safetensors", *more)
        assert "leave out --batch" in line
    model_json = json.loads((target / "model.json").read_text())
    model_json["options"]["width"] = 64
    (target / "model.json").write_text(json.dumps(model_json))
    with pytest.raises(ValueError, match="does not fit model.json: see "):
        vit_jax.load(target)


def test_the_report_has_sizes_speed_and_the_machine(exported) -> None:
    report = json.loads((exported / "parity.json").read_text())
    for name in ("program.stablehlo", "weights.safetensors"):
        assert report["bytes"][name] == (exported / name).stat().st_size
    assert report["machine"]["host_cores"] >= 1 and report["machine"]["versions"]["jax"]
    for measured in (report["models"]["16x24"], report["programs"]["program.stablehlo"]):
        assert measured["seconds_per_image"].keys() == {"1", "32"}
        assert all(of["clock"] > 0 for of in measured["seconds_per_image"].values())


def test_int8_is_judged_by_the_classes_of_photographs(
    model, exported, images, tmp_path, printed
) -> None:
    target = tmp_path / "int8"
    printed("export", model, target, "--dtype", "int8", "--images", images)
    report = json.loads((target / "parity.json").read_text())
    found, exact = report["programs"]["program.stablehlo"], report["models"]["16x24"]
    assert found["dtype"] == "int8" and parity.relative(found) > 1e-5
    assert parity.relative(found["from_model_in_int8"]) <= 1e-5
    # Of 6 images, one may have another class.
    assert_close(found["bound"]["same_class"], 5 / 6)
    assert_close(found["bound"]["top1"], exact["top1"] - 1 / 6)
    weights = "weights.safetensors"
    assert (target / weights).stat().st_size < 0.6 * (exported / weights).stat().st_size
    pixels = np.zeros((2, 16, 24, 3), np.uint8)
    alone, as_float32 = runtime().Model(target)(pixels), runtime().Model(exported)(pixels)
    assert_close(alone["logits"], as_float32["logits"], scaled=parity.INT8_BOUND)


def test_the_folders_of_photographs_may_be_named_as_in_a_file_of_classes(
    model, exported, images, tmp_path, printed
) -> None:
    names = ("ant", "bee", "cat", "dog", "elk")
    (tmp_path / "names.txt").write_text("\n".join(names))
    for number in range(3):
        shutil.copytree(images / str(number), tmp_path / "images" / names[number])
    given = ("--images", tmp_path / "images", "--classes", tmp_path / "names.txt")
    printed("export", model, tmp_path / "out", "--dtype", "int8", *given)
    found, before = (
        json.loads((folder / "parity.json").read_text()) for folder in (tmp_path / "out", exported)
    )
    assert found["models"]["16x24"]["top1"] == before["models"]["16x24"]["top1"]
    assert "top1" in found["programs"]["program.stablehlo"]["bound"]


def test_int8_without_photographs_is_judged_by_its_difference(model, tmp_path, printed) -> None:
    printed("export", model, tmp_path / "out", "--dtype", "int8")
    report = json.loads((tmp_path / "out" / "parity.json").read_text())
    assert report["images"]["source"].startswith("random pixels")
    found = report["programs"]["program.stablehlo"]
    assert 1e-5 < parity.relative(found) <= found["bound"]["relative"] == parity.INT8_BOUND


def test_int8_weights_alone_are_read_by_load(model, images, tmp_path, printed) -> None:
    target = tmp_path / "out"
    arguments = ("--format", "safetensors", "--dtype", "int8", "--images", images)
    line = printed("export", model, target, *arguments)
    assert "weights.safetensors: relative difference" in line
    exact, rounded = params_of(vit_jax.load(model)), params_of(vit_jax.load(target))
    assert exact.keys() == rounded.keys()
    for path, array in exact.items():
        assert_close(rounded[path], array, scaled=0.5001 / 127)
    assert json.loads((target / "card.json").read_text())["kernels"] == "int8"


def test_exported_weights_are_evaluated_and_predict_as_their_model(
    model, images, tmp_path, printed, refused
) -> None:
    target, names = tmp_path / "out", tmp_path / "names.txt"
    names.write_text("0\n1\n2\n3\n4\n")
    printed("export", model, target, "--format", "safetensors")
    for command in (
        ("evaluate", "--images", images, "--json"),
        ("predict", images / "0" / "0.png", "--json"),
    ):
        answers = [printed(*command, "--workdir", workdir) for workdir in (model, target)]
        assert answers[1].replace(str(target), str(model)) == answers[0]
    line = refused("evaluate", "--workdir", target)
    assert "name a recipe with data and evaluators, --config, or images" in line
    assert printed("evaluate", "--workdir", target, "--images", images, "--classes", names)


@pytest.mark.parametrize("kind", ["softmax", "sigmoid", "sigmoid_mean"])
def test_every_command_has_the_probabilities_that_a_run_was_trained_for(
    kind, model, images, tmp_path, printed
) -> None:
    run, weights, program = tmp_path / "run", tmp_path / "weights", tmp_path / "program"
    shutil.copytree(model, run)
    card = json.loads((run / "model.json").read_text())
    (run / "model.json").write_text(json.dumps(card | {"cross_entropy": kind}))
    printed("export", run, weights, "--format", "safetensors")
    printed("export", run, program)
    paths = sorted(images.rglob("*.png"))
    loaded = vit_jax.load(run)
    pixels = np.stack([read_pixels(path, transform_of(loaded)) for path in paths])
    logits = np.asarray(loaded(vit_jax.read_images(paths, loaded)), np.float64)
    sigmoids = 1 / (1 + np.exp(-logits))
    softmax = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    exact = softmax if kind == "softmax" else sigmoids
    assert_close(runtime().Model(program)(pixels)["probabilities"], exact, atol=1e-5)
    labels = np.array([int(path.parent.name) for path in paths])
    hot = np.eye(5)[labels]
    binary = -(hot * np.log(sigmoids) + (1 - hot) * np.log(1 - sigmoids)).sum(axis=1)
    own = -np.log(softmax[np.arange(len(labels)), labels]) if kind == "softmax" else binary
    for workdir in (run, weights):
        file = tmp_path / "predictions.csv"
        metrics = json.loads(
            printed(
                *("evaluate", "--workdir", workdir, "--images", images, "--json"),
                *("--predictions", file),
            )
        )
        predicted = printed("predict", "--workdir", workdir, "--csv", "-", images)
        for rows in (file.read_text(), predicted):
            table = list(csv.DictReader(io.StringIO(rows)))
            assert_close([float(row["probability"]) for row in table], exact.max(axis=1), atol=1e-5)
        assert_close(metrics["loss"], own.mean() / (5 if kind == "sigmoid_mean" else 1))


def test_sigmoids_that_earlier_versions_recorded_elsewhere_are_read(
    model, tmp_path, printed, caplog
) -> None:
    """Of a run in its config, of an exported model in card.json."""
    run, weights = tmp_path / "run", tmp_path / "weights"
    shutil.copytree(model, run)
    config = json.loads((run / "config.json").read_text())
    config["objective"] = {"cross_entropy": "sigmoid_mean"}
    (run / "config.json").write_text(json.dumps(config))
    card = json.loads((run / "model.json").read_text())
    (run / "model.json").write_text(json.dumps(card | {"cross_entropy": ""}))
    assert vit_jax.load(run).cross_entropy == "sigmoid_mean"
    printed("export", run, weights, "--format", "safetensors")
    assert vit_jax.load(weights).cross_entropy == "sigmoid_mean"
    card = json.loads((weights / "model.json").read_text())
    (weights / "model.json").write_text(json.dumps(card | {"cross_entropy": ""}))
    assert vit_jax.load(weights).cross_entropy == "sigmoid"
    (weights / "card.json").write_text("{")
    assert vit_jax.load(weights).cross_entropy == ""
    assert "probabilities are assumed to be a softmax" in caplog.text


def test_a_run_whose_config_is_damaged_still_predicts(model, images, tmp_path, printed) -> None:
    run = tmp_path / "run"
    shutil.copytree(model, run)
    expected = printed("predict", "--workdir", run, images / "0" / "0.png", "--json")
    (run / "config.json").write_text("{")
    assert printed("predict", "--workdir", run, images / "0" / "0.png", "--json") == expected
    (run / "config.json").unlink()
    assert printed("predict", "--workdir", run, images / "0" / "0.png", "--json") == expected


def test_a_program_in_the_place_of_a_model_is_refused_with_what_to_do(
    exported, images, refused
) -> None:
    for command in (["evaluate", "--images", images], ["predict", images]):
        line = refused(*command, "--workdir", exported, folder=exported)
        assert "which its runtime.py runs: name what it was exported from" in line
    with pytest.raises(ValueError, match="which its runtime.py runs: .*--format safetensors"):
        vit_jax.load(exported)


def test_several_image_sizes_have_a_program_each_and_share_the_weights(
    model, images, tmp_path, printed
) -> None:
    target, sizes = tmp_path / "out", ((16, 24), (32, 32))
    texts = [f"{height},{width}" for height, width in sizes]
    named = [part for text in texts for part in ("--image-size", text)]
    printed("export", model, target, *named, "--images", images, "--batch", "any")
    programs = json.loads((target / "parity.json").read_text())["programs"]
    assert list(programs) == ["program_16x24.stablehlo", "program_32x32.stablehlo"]
    for (height, width), found in zip(sizes, programs.values(), strict=True):
        assert found["image_size"] == [height, width] and parity.relative(found) <= 1e-5
        alone, loaded = (
            runtime().Model(target, (height, width)),
            vit_jax.load(model, image_size=(height, width)),
        )
        data = (images / "0" / "0.png").read_bytes()
        read = alone.read(data)
        np.testing.assert_array_equal(
            read, read_pixels(images / "0" / "0.png", transform_of(loaded))
        )
        expected = classify(loaded, top=5, names=list("01234"))(read[None])[0]
        assert [name for name, _ in alone.classify(read)] == [name for name, _ in expected]
        assert_close([p for _, p in alone.classify(read)], [p for _, p in expected])
    assert runtime().Model(target).image_size == [16, 24]
    with pytest.raises(ValueError, match=r"no program takes images of \[8, 8\]"):
        runtime().Model(target, (8, 8))


def test_a_program_that_differs_is_not_written(model, tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.setattr(parity, "BOUND", -1.0)
    assert cli.run("export", model, tmp_path / "out") == 1
    assert "program.stablehlo differs from the model by" in capsys.readouterr().err
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize(
    "arguments, problem",
    [
        (["--batch", "0"], "'0': give any, or numbers such as 1,8"),
        (["--batch", "1,1048577"], "numbers such as 1,8, each at most 1048576"),
        (["--format", "pickle"], "invalid choice: 'pickle'"),
        (["--dtype", "int4"], "invalid choice: 'int4'"),
        (["--format", "onnx", "--dtype", "bfloat16"], "onnx cannot have --dtype bfloat16"),
        (["--image-size", "17,24"], "image height 17 is not a multiple of the patch"),
        (["--images", "gone"], "gone: there is no such file or folder"),
    ],
)
def test_bad_input_writes_nothing(model, tmp_path, refused, arguments, problem) -> None:
    assert problem in refused("export", model, tmp_path / "out", *arguments, folder=tmp_path)


def test_nothing_is_exported_over_files_or_from_nothing(exported, model, refused) -> None:
    assert f"{exported} exists" in refused("export", model, exported, folder=exported)
    assert "gone" in refused("export", "gone", exported.parent / "new", folder=exported.parent)


def test_a_missing_package_is_one_line(model, tmp_path, refused, monkeypatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    for name, extra in (("stablehlo", "export"), ("onnx", "onnx")):
        line = refused("export", model, tmp_path / "out", "--format", name)
        assert f"pip install vit_jax[{extra}]" in line


def test_the_card_of_a_run_has_its_data_and_the_metrics_of_its_step(
    recipe, tmp_path, printed
) -> None:
    run = tmp_path / "run"
    every = ("--config.evaluate_every.steps=2", "--config.checkpoint.every.steps=1")
    assert cli.train(recipe, run, *every, "--config.checkpoint.keep_last=9") == 0
    measured = {line["step"]: line for line in runs.lines(run) if "eval_top1" in line}
    assert sorted(measured) == [2, 4, 6]
    best = vit_jax.load(run, step="best").step
    for asked, step, of in (("best", best, best), ("latest", 6, 6), ("3", 3, 2)):
        target = tmp_path / f"out_{asked}"
        printed("export", run, target, "--measured", 8, "--step", asked)
        source = json.loads((target / "card.json").read_text())["source"]
        assert (source["step"], source["chosen"]) == (step, asked)
        # The average is exported, so its metrics are the model's.
        assert source["average"] and not any("ema" in name for name in source["metrics"])
        line = measured[of]
        assert source["metrics"]["eval_loss"] == line["eval_ema_loss"] != line["eval_loss"]
        assert source["metrics"]["eval_count"] == line["eval_count"]
        checksums = run / source["digest"]["file"]
        assert checksums.parent.name == str(step)
        assert source["digest"]["sha256"] == hashlib.sha256(checksums.read_bytes()).hexdigest()
        page = (target / "README.md").read_text()
        pixels = " x ".join(map(str, source["image_size"]))
        evaluated = (
            f"On {measured[of]['eval_count']:,} held-out images of {pixels} pixels at step {of},"
            " with averaged parameters"
        )
        assert evaluated + (": " if of == step else ", the last evaluation before it: ") in page
        assert f", step {step} ({asked})." in page
        assert f"- train: {source['data']['train']['images']:,} images of" in page
        assert "8 images (held-out images of" in page


@pytest.mark.parametrize("interpolation", ["linear", "bicubic_antialias"])
def test_the_card_names_the_packages_of_the_runtime_and_the_digest_of_the_file(
    interpolation, tmp_path, printed
) -> None:
    made = tiny.model(image_size=(16, 24))
    made.preprocessing = Preprocessing(image_size=(16, 24), interpolation=interpolation)
    vit_jax.save(made, tmp_path / "model.npz")
    printed("export", tmp_path / "model.npz", tmp_path / "out")
    card = json.loads((tmp_path / "out" / "card.json").read_text())
    needed = ["opencv-python-headless"] if interpolation == "linear" else []
    assert card["requirements"][:-3] == ["numpy", "pillow", *needed]
    content = (tmp_path / "model.npz").read_bytes()
    expected = {"file": "model.npz", "sha256": hashlib.sha256(content).hexdigest()}
    assert card["source"]["digest"] == expected
    page = (tmp_path / "out" / "README.md").read_text()
    assert " ".join(card["requirements"]) in page and expected["sha256"] in page
