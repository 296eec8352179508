"""What a run reports, and that a resumed one continues the file where it goes on."""

import json

import pytest

from vit_jax.training import metrics


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


@pytest.mark.parametrize("cut", ['{"step": 2, "lo', "{}", "\x00\x00"])
def test_a_line_that_a_kill_cut_is_dropped(tmp_path, cut) -> None:
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "loss": 1.0}\n' + cut)
    write(tmp_path, 3, loss=3.0)
    assert steps(tmp_path) == [1, 3]


def test_numbers_are_on_disk_when_write_returns(tmp_path) -> None:
    with metrics.MetricWriter(tmp_path, start_step=0) as writer:
        writer.write(1, {"loss": 1.0})
        assert steps(tmp_path) == [1]


def test_the_speed_leaves_out_what_was_before_a_restart(monkeypatch) -> None:
    clock = [0.0]
    monkeypatch.setattr("vit_jax.training.metrics.time.perf_counter", lambda: clock[0])
    with metrics.Progress(start_step=10, total_steps=100, batch_size=8) as progress:
        clock[0] = 100.0  # compilation
        progress.restart(11)
        clock[0] = 102.0
        assert progress.rate(15) == 16.0
        clock[0] = 103.0
        assert progress.rate(20) == 40.0


def test_without_a_terminal_every_update_is_a_line_with_the_time_left(capsys) -> None:
    with metrics.Progress(start_step=0, total_steps=100, batch_size=8) as progress:
        progress.show(50, {"loss": 1.25, "learning_rate": 1e-3, "images_per_second": 40.0})
        progress.say("done")
    assert capsys.readouterr().err.splitlines() == [
        "step 50/100: loss 1.25, learning_rate 0.001, images_per_second 40, 00:10 left",
        "done",
    ]
