"""What a run reports, and that a resumed one continues the file where it goes on."""

import errno
import json
import math
import pathlib
from typing import Any

import pytest

from vit_jax.errors import RunFailed
from vit_jax.training import events, metrics
from vit_jax.workdir import lines


def write(workdir, step: int, **values: float) -> None:
    with metrics.MetricWriter(workdir, start_step=step - 1) as writer:
        writer.write(step, values)


def steps(workdir) -> list[int]:
    lines = (workdir / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line)["step"] for line in lines]


def test_what_was_written_beyond_the_checkpoint_is_dropped(tmp_path) -> None:
    with metrics.MetricWriter(tmp_path, start_step=0) as writer:
        for step in (1, 2, 2, 3, 4):
            writer.write(step, {"loss": float(step)})
    write(tmp_path, 3, loss=0.5)
    assert steps(tmp_path) == [1, 2, 2, 3]
    assert json.loads((tmp_path / "metrics.jsonl").read_text().splitlines()[-1]) == {
        "step": 3,
        "loss": 0.5,
    }


GOOD = ('{"step": 1, "loss": 1.5}', '{"step": 2, "loss": 0.5, "eval_top1": 0.25}')

BAD = {
    "cut": b'{"step": 2, "lo',
    "zeros": b"\0" * 4096,
    "no UTF-8": b'{"step": 2, "\xff\xfe": 1.0}',
    "no object": b"[1, 2]",
    "no step": b'{"loss": 1.0}',
    "a step that is no number": b'{"step": "2"}',
    "a step that is true": b'{"step": true, "loss": 1.0}',
    "a step with a fraction": b'{"step": 1.5, "loss": 1.0}',
    "a negative step": b'{"step": -1, "loss": 1.0}',
    "deep": b'{"step": 2, "x": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "a name that no file can hold": b'{"step": 2, "lo\\ud800": 1.0}',
    "a huge step": b'{"step": ' + b"9" * 5000 + b"}",
}


@pytest.mark.parametrize("bad", BAD.values(), ids=BAD.keys())
def test_damaged_lines_are_dropped_and_counted_and_no_others(tmp_path, bad) -> None:
    first, second = (text.encode() for text in GOOD)
    (tmp_path / "metrics.jsonl").write_bytes(b"\n".join((bad, first, bad, second, bad)))
    assert lines.read(tmp_path).good == tuple(json.loads(text) for text in GOOD)
    with metrics.MetricWriter(tmp_path, start_step=2) as writer:
        assert "metrics.jsonl: 3 damaged lines were dropped" in writer.messages
        writer.write(3, {"loss": 3.0})
    assert steps(tmp_path) == [1, 2, 3]


def test_a_line_that_continues_a_cut_one_or_follows_zeros_is_kept(tmp_path) -> None:
    first, second = (text.encode() for text in GOOD)
    cut = b'{"step": 1, "lo' + first + b"\n" + b"\0" * 512 + second  # and no end of the line
    (tmp_path / "metrics.jsonl").write_bytes(cut)
    write(tmp_path, 3, loss=3.0)
    assert steps(tmp_path) == [1, 2, 3]


def test_lines_are_json_where_a_value_is_no_number(tmp_path) -> None:
    write(tmp_path, 1, loss=math.nan, norm=math.inf, good=1.0)
    (text,) = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert json.loads(text, parse_constant=pytest.fail) == {
        "step": 1,
        "loss": None,
        "norm": None,
        "good": 1.0,
    }
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "loss": NaN, "norm": 1e999}\n')
    assert lines.read(tmp_path).good == ({"step": 1, "loss": None, "norm": None},)


def shown(workdir: pathlib.Path) -> list[tuple[str, int, float]]:
    """What TensorBoard shows of a run, by its own reader."""
    reader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    folder = reader.EventAccumulator(str(workdir / "tensorboard"), size_guidance={"scalars": 0})
    folder.Reload()
    tags = folder.Tags()["scalars"]
    return sorted((tag, event.step, event.value) for tag in tags for event in folder.Scalars(tag))


def told(workdir: pathlib.Path) -> list[tuple[str, int, float]]:
    """What metrics.jsonl holds, by TensorBoard's tags."""
    found: list[Any] = []
    for line in lines.read(workdir).good:
        numbers = lines.numbers(line)
        found += [(events.tag(name), line["step"], value) for name, value in numbers.items()]
    return sorted(found)


def log(workdir: pathlib.Path, start: int, stop: int) -> None:
    with metrics.MetricWriter(workdir, start_step=start) as writer:
        for step in range(start + 1, stop + 1):
            writer.write(step, {"loss": step / 8, "grad_norm": 2.0})
        writer.write(stop, {"eval_top1": 0.5})


def test_a_resume_keeps_the_events_of_its_start_step(tmp_path) -> None:
    log(tmp_path, 0, 6)
    log(tmp_path, 4, 8)
    assert ("train/loss", 4, 0.5) in shown(tmp_path)
    assert shown(tmp_path) == told(tmp_path)
    assert len(told(tmp_path)) == 2 * 8 + 1


def test_metrics_are_grouped_by_what_they_are_of() -> None:
    tags = {
        "eval_near/top1": "eval/near/top1",
        "loss": "train/loss",
        "bad_images": "data/bad_images",
    }
    tags |= {"images_per_second": "time/images_per_second", "eval_ema_top1": "eval/ema_top1"}
    assert {name: events.tag(name) for name in tags} == tags


def test_a_file_hides_what_older_ones_have_from_its_first_step_on(tmp_path) -> None:
    for start, steps in ((0, (1, 2, 3)), (1, (3,))):
        file = events.Events(tmp_path, start_step=start, older=start)
        for step in steps:
            file.write(step, {"loss": 1.0})
        file.close()
    files = [path.read_bytes() for path in sorted(tmp_path.iterdir())]
    assert events.shown(files) == {(1, "train/loss"), (3, "train/loss")}


@pytest.mark.parametrize("lost", [0, 1, 40, 150])
def test_events_that_a_kill_lost_are_written_again(tmp_path, lost) -> None:
    log(tmp_path, 0, 6)
    (file,) = (tmp_path / "tensorboard").iterdir()
    content = file.read_bytes()
    file.write_bytes(content[:-lost] if lost else b"")
    with metrics.MetricWriter(tmp_path, start_step=6) as writer:
        assert writer.messages[0].startswith("tensorboard/: ")
    log(tmp_path, 6, 8)
    assert shown(tmp_path) == told(tmp_path)


def test_events_are_on_disk_when_write_returns(tmp_path) -> None:
    with metrics.MetricWriter(tmp_path, start_step=0) as writer:
        writer.write(1, {"loss": 1.0})
        assert shown(tmp_path) == [("train/loss", 1, 1.0)]


def test_a_full_disk_ends_the_run_with_one_line(tmp_path, monkeypatch) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with metrics.MetricWriter(tmp_path, start_step=0) as writer:
        monkeypatch.setattr("vit_jax.training.metrics.os.fsync", full)
        with pytest.raises(RunFailed, match="No space left on device"):
            writer.write(1, {"loss": 1.0})


def test_numbers_are_on_disk_when_write_returns(tmp_path) -> None:
    with metrics.MetricWriter(tmp_path, start_step=0) as writer:
        writer.write(1, {"loss": 1.0})
        assert steps(tmp_path) == [1]
