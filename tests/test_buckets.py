"""A run whose folder is on a bucket: all of it is there, and it is the run that a disk has."""

import json
import pathlib
import signal
import socket
import threading
from collections.abc import Iterator
from typing import NoReturn

import jax
import jax.numpy as jnp
import numpy as np
import PIL.Image
import pytest

import vit_jax
from tests import buckets, cli, runs
from tests.compare import assert_close, assert_same_bits
from tests.patience import limit
from vit_jax.checkpoints import store
from vit_jax.config import CheckpointConfig
from vit_jax.training import metrics, run_config
from vit_jax.training.events import tag
from vit_jax.workdir import lines, place

DEVICES = 8  # those of this process: programs, and so bits, depend on their number
STEPS = 12
OVERRIDES = (
    f"--config.total.steps={STEPS}",
    "--config.evaluate_every.steps=6",
    "--config.checkpoint.every.steps=4",
)


@pytest.fixture(scope="module")
def local(command) -> pathlib.Path:
    """The same run on a disk, which nothing interrupted."""
    workdir = command.folder / "local"
    assert cli.run(*command.train(workdir, *OVERRIDES)) == 0
    return workdir


@pytest.fixture(scope="module", params=["s3", "gs"])
def bucket(request, tmp_path_factory) -> Iterator[str]:
    with buckets.server(request.param, tmp_path_factory.mktemp("server")) as url:
        yield url


@pytest.fixture(scope="module")
def run(command, bucket, tmp_path_factory) -> str:
    """A run that was killed after its first checkpoint, and went on."""
    workdir = f"{bucket}/runs/a"
    with cli.start(*command.train(workdir, *OVERRIDES), devices=DEVICES) as child:
        hanging = threading.Timer(limit(cli.LIMIT), child.kill)
        hanging.start()
        try:
            assert any(f"step 7/{STEPS}" in line for line in child.stderr)
        finally:
            child.kill()
            hanging.cancel()
    assert child.returncode == -signal.SIGKILL
    assert cli.run(*command.train(workdir, *OVERRIDES)) == 0
    return workdir


def without_clock(found: lines.Lines) -> list[lines.Line]:
    assert not found.bad
    return list(map(runs.without_clock, found.good))


def test_a_killed_run_on_a_bucket_gives_the_bits_and_lines_of_one_on_a_disk(run, local) -> None:
    assert_same_bits(runs.arrays(run), runs.arrays(local))
    assert without_clock(lines.read(run)) == without_clock(lines.read(local))


# gcsfs sends an object of up to 5 MB at once, which takes aiohttp's event loop a moment.
@pytest.mark.filterwarnings("ignore:Sending a large body:ResourceWarning")
def test_all_of_a_run_is_on_the_bucket_and_nothing_beside_it(run, local, command) -> None:
    assert cli.run("figures", "--workdir", run) == 0
    assert cli.run("report", run, "--no-pictures") == 0
    there = {path.name for path in place.folder(run).iterdir()}
    assert {path.name for path in local.iterdir()} | {"pictures", "report.html"} == there
    assert not [path for path in pathlib.Path().iterdir() if path.name.endswith(":")]
    pictures = {path.name for path in (place.folder(run) / "pictures").iterdir()}
    assert pictures >= {"curves.png", "filters.png", "positions.png", "predictions.png"}
    assert not lines.segments(place.folder(run)), "the end puts them into metrics.jsonl"


def test_tensorboard_shows_every_number_once(run, tmp_path) -> None:
    reader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    for path in (place.folder(run) / metrics.EVENTS).iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    events = reader.EventAccumulator(str(tmp_path), size_guidance={"scalars": 0}).Reload()
    tags = events.Tags()["scalars"]
    shown = {(one, event.step): event.value for one in tags for event in events.Scalars(one)}
    told = {
        (tag(name), line["step"]): np.float32(value)
        for line in lines.read(run).good
        for name, value in lines.numbers(line).items()
    }
    assert shown == told
    assert len(shown) == sum(len(events.Scalars(one)) for one in tags)


def test_commands_take_a_run_on_a_bucket(run, bucket, local, tmp_path, refused, printed) -> None:
    measured = [
        json.loads(printed("evaluate", "--json", "--workdir", str(w))) for w in (run, local)
    ]
    assert measured[0] == measured[1]
    PIL.Image.fromarray(np.eye(28, dtype=np.uint8) * 200).convert("RGB").save(tmp_path / "a.png")
    guesses = [
        printed("predict", "--workdir", str(w), str(tmp_path / "a.png")) for w in (run, local)
    ]
    assert guesses[0] == guesses[1]
    for target, layout in (("copy", ""), ("file.safetensors", "timm"), ("folder", "hf")):
        options = ["--layout", layout] if layout else ["--check"]
        printed("convert", run, f"{bucket}/models/{target}", *options)
        model = vit_jax.load(f"{bucket}/models/{target}", num_heads=2)
        images = np.linspace(-1, 1, 28 * 28 * 3, dtype=np.float32).reshape(1, 28, 28, 3)
        expected = vit_jax.load(local)(images)
        assert_close(model(images), expected, rtol=1e-4, atol=1e-5)
    assert "is not empty" in refused("convert", run, f"{bucket}/models/copy")


@pytest.mark.parametrize("bucket", ["s3"], indirect=True)
def test_training_starts_from_a_run_on_a_bucket(run, command, bucket) -> None:
    start = f"--config.init_from={run}"
    assert cli.run(*command.train(f"{bucket}/runs/b", *OVERRIDES, start)) == 0
    assert run_config.read_config(f"{bucket}/runs/b").init_from == run


def test_a_checkpoint_on_a_bucket_gets_metrics_later(bucket) -> None:
    small = {"params": {"a": np.arange(3.0, dtype=np.float32)}, "step": np.int32(2)}
    shapes = store.local_shapes(jax.eval_shape(lambda: jax.tree.map(jnp.asarray, small)))
    keep = CheckpointConfig(keep_last=1)
    with store.Store(f"{bucket}/runs/later", keep) as checkpoints:
        for step, found in ((1, {"top1": 0.5}), (2, {})):
            checkpoints.save(step, small, found)
            checkpoints.wait()
        assert not checkpoints.is_evaluated(2)
        checkpoints.add_metrics(2, {"top1": 0.6})
        assert (checkpoints.is_evaluated(2), checkpoints.steps) == (True, [2])
    with store.Store(f"{bucket}/runs/later", keep) as checkpoints:
        assert checkpoints.is_evaluated(2) and not checkpoints.is_best({"top1": 0.6})
        assert_same_bits(checkpoints.restore(shapes, step=2), small)


def test_lines_in_both_places_are_read_once(bucket) -> None:
    """A kill between putting the segments into metrics.jsonl and removing them."""
    folder = place.folder(f"{bucket}/runs/c")
    (folder / lines.NAME).write_bytes(b'{"step": 1, "a": 1}\n{"step": 2, "a": 2}\n')
    (folder / lines.SEGMENTS / "000000.jsonl").write_bytes(b'{"step": 2, "a": 2}\n{"step": 3')
    (folder / lines.SEGMENTS / "000001.jsonl").write_bytes(b'{"step": 4, "a": 4}\n')
    found = lines.read(folder)
    assert [line["step"] for line in found.good] == [1, 2, 4] and found.bad == 1
    with metrics.MetricWriter(folder, start_step=2) as writer:
        writer.write(3, {"a": 3.0})
    assert [line["step"] for line in lines.read(folder).good] == [1, 2, 3]
    assert not lines.segments(folder)


def test_what_is_uploaded_goes_on_in_another_file(bucket, monkeypatch) -> None:
    monkeypatch.setattr(metrics, "LARGE", 1000)
    folder = place.folder(f"{bucket}/runs/d")
    with metrics.MetricWriter(folder, start_step=0) as writer:
        for step in range(1, 61):
            writer.write(step, {"loss": float(step)})
            if step % 20 == 0:
                writer.flush()
                # All that was written is there, and nothing is uploaded again and again.
                assert [line["step"] for line in lines.read(folder).good] == [*range(1, step + 1)]
        # 60 lines of 27 bytes, and events of 50 bytes, looked at after 20, 40 and 60 of them.
        assert len(lines.segments(folder)) == len(list((folder / metrics.EVENTS).iterdir())) == 2
    assert len(lines.read(folder).good) == 60


def test_a_bucket_that_is_not_there_is_one_line(bucket, command, refused) -> None:
    missing = bucket.replace("made-by-the-tests", "no-such-bucket") + "/run"
    line = refused(*command.train(missing))
    assert f"there is no bucket {bucket.replace('made-by-the-tests', 'no-such-bucket')}" in line
    refused("evaluate", "--workdir", missing)


def test_without_a_network_a_bucket_of_google_is_refused_at_once(monkeypatch, capsys) -> None:
    pytest.importorskip("gcsfs", reason="extra dev has it")

    def no_address(*_: object) -> NoReturn:
        raise socket.gaierror("Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", no_address)
    for name in ("STORAGE_EMULATOR_HOST", "http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    path = "gs://a-bucket-of-google/Ti_16.npz"
    assert cli.run("predict", "--workdir", path, __file__) == 2
    assert capsys.readouterr().err == (
        "vit_jax: the bucket gs://a-bucket-of-google cannot be reached: there is no network, or no"
        " address of storage.googleapis.com\n"
    )


def test_a_library_that_is_not_installed_is_named(command) -> None:
    """As a user sees it: the import fails in a process of its own."""
    program = (
        "import sys; sys.modules['s3fs'] = sys.modules['gcsfs'] = None\n"
        "from vit_jax.__main__ import main\n"
        "codes = [main(['train', '--config', sys.argv[1], '--workdir', f'{scheme}://bucket/run'])\n"
        "         for scheme in ('gs', 's3')]\n"
        "sys.exit(max(codes))"
    )
    ended = cli.process(command.recipe, program=(*cli.PYTHON, "-c", program))
    first, second = ended.stderr.splitlines()
    assert ended.returncode == 2
    assert "pip install 'etils[epath-gcs]'" in first and "pip install 'etils[epath-s3]'" in second


@pytest.mark.parametrize("url", ["az://b/run", "http://b/run", "s3://", "gs://bucket", "s3://b/"])
def test_an_url_of_no_folder_on_a_known_bucket_is_refused(command, url, refused) -> None:
    assert url in refused(*command.train(url))
