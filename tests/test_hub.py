"""Released models by their name at the Hugging Face hub, from a server of this machine."""

import hashlib
import http.server
import importlib.util
import json
import pathlib
import shutil
import threading
from collections.abc import Iterator

import numpy as np
import pytest
import safetensors

import vit_jax
from tests import cli
from tests.models import tiny
from vit_jax.workdir import hub as hf

COMMIT = "a" * 40


class Hub(http.server.BaseHTTPRequestHandler):
    """Answers /OWNER/NAME/resolve/REVISION/FILE as the hub does, with the files of a folder."""

    folder: pathlib.Path
    asked: list[str]
    drops = ""  # the end of the path of a file whose connection is closed without an answer

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def log_message(self, *_: object) -> None:
        pass

    def _answer(self, *, body: bool) -> None:
        if self.drops and self.path.endswith(self.drops):
            self.close_connection = True
            return
        name, _, rest = self.path.strip("/").partition("/resolve/")
        path = self.folder / name / rest.partition("/")[2]
        if rest:  # the library asks for more than models
            self.asked.append(f"{'GET' if body else 'HEAD'} {path.name}")
        there = path.is_file()
        content = path.read_bytes() if there else b""
        self.send_response(200 if there else 404)
        if not there:
            missing = "Entry" if (self.folder / name).is_dir() else "Repo"
            self.send_header("X-Error-Code", f"{missing}NotFound")
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("ETag", f'"{hashlib.sha1(content).hexdigest()}"')
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if body:
            self.wfile.write(content)


@pytest.fixture
def hub(tmp_path, monkeypatch) -> Iterator[type[Hub]]:
    """A hub with the model `me/tiny`, and an empty cache."""
    pytest.importorskip("huggingface_hub", reason="needs vit_jax[hub]")
    handler = type("Handler", (Hub,), {"folder": tmp_path / "hub", "asked": []})
    (tmp_path / "hub/me").mkdir(parents=True)
    vit_jax.save(tiny.model(activation="gelu_erf"), tmp_path / "hub/me/tiny", layout="hf")
    (tmp_path / "hub/me/tiny/pytorch_model.bin").write_bytes(b"is not asked for")
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_address[1]}")
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.setenv(name, "127.0.0.1")
    try:
        yield handler
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_a_model_of_the_hub_is_downloaded_once_and_then_read_offline(
    hub, tmp_path, monkeypatch
) -> None:
    expected = vit_jax.load(tmp_path / "hub/me/tiny")
    images = tiny.images()
    found = vit_jax.load("hf:me/tiny")
    assert np.array_equal(found(images), expected(images))
    gets = [name for name in hub.asked if name.startswith("GET")]
    assert sorted(gets) == [
        "GET config.json",
        "GET model.safetensors",
        "GET preprocessor_config.json",
    ]
    vit_jax.load("hf:me/tiny@main")
    assert [name for name in hub.asked if name.startswith("GET")] == gets, "from the cache"
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")  # where nothing answers
    assert np.array_equal(vit_jax.load("hf:me/tiny")(images), expected(images))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("hf:me/gone", "hf:me/gone cannot be downloaded: .*404"),
        ("hf:me/tiny/gone.npz", "hf:me/tiny/gone.npz: the model has no gone.npz"),
        ("hf:tiny", "hf:tiny is no model of the hub: write hf:OWNER/NAME"),
        ("hf:me/../x", "is no model of the hub"),
        ("hf:me--x/a..b", "hf:me--x/a..b cannot be downloaded: "),
    ],
)
def test_a_name_that_is_not_there_is_one_line(hub, name, message) -> None:
    with pytest.raises(ValueError, match=message):
        vit_jax.load(name)


@pytest.mark.parametrize("name", ["hf:me/tiny", "hf:me/tiny/model.safetensors"])
def test_a_hub_that_cannot_be_reached_is_one_line(hub, monkeypatch, name) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(ValueError, match="not in the cache, and the hub at http://127.0.0.1:9 can"):
        vit_jax.load(name)


def test_a_connection_that_drops_is_one_line(hub, monkeypatch) -> None:
    monkeypatch.setattr(hub, "drops", "model.safetensors")
    with pytest.raises(ValueError, match="hf:me/tiny cannot be downloaded: ") as error:
        vit_jax.load("hf:me/tiny")
    assert "\n" not in str(error.value)


def test_an_index_that_names_no_files_is_one_line(hub) -> None:
    (hub.folder / "me/odd").mkdir()
    index = hub.folder / "me/odd/model.safetensors.index.json"
    index.write_text('{"weight_map": {"a": 5}}')
    with pytest.raises(ValueError, match="index.json is damaged: it names the file 5, which is no"):
        vit_jax.load("hf:me/odd")


def test_a_file_in_a_folder_has_its_parts_and_its_config_there(hub) -> None:
    whole, folder = hub.folder / "me/tiny", hub.folder / "me/several/large"
    shutil.copytree(whole, folder)
    (folder / "model.safetensors").rename(folder / "part.safetensors")
    with safetensors.safe_open(folder / "part.safetensors", "numpy") as file:
        parts = dict.fromkeys(file.keys(), "part.safetensors")
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": parts}))
    found = vit_jax.load("hf:me/several/large/model.safetensors.index.json")
    images = tiny.images()
    assert np.array_equal(found(images), vit_jax.load(whole)(images))


def test_a_hub_that_is_gone_before_the_config_is_noted(hub, monkeypatch, caplog) -> None:
    """The model may lack the file; if the hub has said so once, there is nothing to note."""
    (hub.folder / "me/tiny/preprocessor_config.json").unlink()
    found = hf.local("hf:me/tiny")
    assert not caplog.records
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")  # where nothing answers
    assert hf.local("hf:me/tiny") == found
    assert not caplog.records
    (found / "config.json").unlink()
    hf.local("hf:me/tiny")
    (record,) = caplog.records
    said = record.getMessage()
    assert said.startswith("hf:me/tiny: the hub cannot be reached, and config.json is not in the")


@pytest.mark.skipif(
    importlib.util.find_spec("huggingface_hub") is not None, reason="huggingface_hub is installed"
)
def test_without_the_library_it_is_one_line(refused, tmp_path) -> None:
    said = refused("predict", "--workdir", "hf:me/tiny", tmp_path, folder=tmp_path)
    assert "hf:me/tiny needs huggingface_hub, which is not installed: pip install" in said


def test_the_command_line_takes_such_names_too(hub, tmp_path, capsys) -> None:
    assert cli.run("convert", "hf:me/tiny", tmp_path / "run") == 0
    assert vit_jax.load(tmp_path / "run").options.width == 32
