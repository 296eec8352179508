"""The page of a plan: self-contained, and readable without a network."""

import dataclasses
import re

import pytest

from tests.planning.test_search import STEP, TIME, job
from vit_jax.planning import changes, page, plan, scaling, table, topologies
from vit_jax.planning.compiling import Compiler
from vit_jax.planning.job import Result
from vit_jax.planning.plan import Plan, Stage
from vit_jax.planning.scaling import Point
from vit_jax.planning.search import Candidate

FITS = Plan(job=job(), result=Result(step=STEP, needed=4e9), timeline=TIME, price=2.0)
TOO_LARGE = Plan(job=job(), result=Result(step=STEP, needed=4e10, fits=False), timeline=None)


def test_time_rate_and_cost_follow_from_the_seconds_of_a_step() -> None:
    assert FITS.images_per_second == pytest.approx(5120)
    assert FITS.mfu == pytest.approx(5e13 / (0.1 * 8 * 197e12))
    assert FITS.flops_ratio == pytest.approx(1)
    assert FITS.chip_hours == pytest.approx(1000 * 0.1 / 3600 * 8)
    row = dict(zip(*table.overview([FITS]), strict=True))
    assert (row["topology"], row["ms/step"], row["MFU"]) == ("v5e-8", "100.0", "31.7%")


def test_a_chip_of_two_devices_is_paid_once_and_computes_with_both() -> None:
    topology = topologies.parse("v3-8")
    assert (topology.chips, topology.devices) == (4, 8)
    run = dataclasses.replace(FITS, job=dataclasses.replace(FITS.job, topology=topology))
    assert run.chip_hours == pytest.approx(run.hours * 4)
    assert run.mfu == pytest.approx(5e13 / (0.1 * 8 * 61.5e12))


def test_a_batch_is_split_over_data_and_fsdp() -> None:
    mesh = {"data": 2, "fsdp": 2, "tensor": 2}
    result = Result(step=dataclasses.replace(STEP, mesh=mesh), needed=4e9)
    row = dict(zip(*table.overview([dataclasses.replace(FITS, result=result)]), strict=True))
    assert (row["mesh"], row["images/device"]) == ("data 2 x fsdp 2 x tensor 2", "128")


def test_a_step_that_does_not_fit_says_by_how_much() -> None:
    assert "does not fit" in table.overview([TOO_LARGE])[1]
    assert any("21.50 too much" in line for line in table.facts(TOO_LARGE))


def test_a_search_shows_the_config_among_the_candidates_by_speed() -> None:
    fields = {"model.remat": "full"}
    slower = dataclasses.replace(FITS, timeline=dataclasses.replace(TIME, seconds=0.2))
    one = Candidate(fields=fields, job=FITS.job, result=FITS.result, estimate=0.0)
    rows = table.candidates([(one, slower)], own=FITS)
    assert [row[0] for row in rows[1:]] == ["(as in the config)", "--config.model.remat=full"]


def test_stages_with_smaller_images_count_in_the_hours_only() -> None:
    half = dataclasses.replace(FITS, timeline=dataclasses.replace(TIME, seconds=0.02))
    run = dataclasses.replace(FITS, earlier=(Stage(steps=400, plan=half),))
    assert run.hours == pytest.approx((600 * 0.1 + 400 * 0.02) / 3600)
    assert (run.seconds, run.mfu) == (FITS.seconds, FITS.mfu)
    assert any("400 of 1,000 steps have images of 224x224: 20.0 ms" in x for x in table.facts(run))


def test_a_size_that_does_not_fit_is_in_the_table_of_scaling() -> None:
    points = list(scaling._points("strong", [TOO_LARGE, FITS, FITS]))
    assert [point.efficiency for point in points] == [None, 1.0, 1.0]
    assert table.scaling(points)[1][4] == "does not fit"


def test_the_stages_of_a_run_are_planned_at_their_sizes(monkeypatch) -> None:
    made: list[tuple[int, ...]] = []

    def make(compiler, wanted, *, price):
        made.append(wanted.config.image_size)
        return dataclasses.replace(FITS, job=wanted)

    monkeypatch.setattr(plan, "make", make)
    config = changes.changed(job().config, {"progressive": ((0.25, 112), (0.5, 160))})
    with Compiler() as compiler:
        run = plan.of_run(compiler, dataclasses.replace(job(), config=config))
    assert [one.steps for one in run.earlier] == [250, 250]
    assert sorted(made) == [(112, 112), (160, 160), (224, 224)]
    assert not run.earlier[0].plan.config.progressive


def test_the_parts_of_the_memory_add_up_to_the_peak() -> None:
    assert sum(page.held_bytes(FITS).values()) == pytest.approx(FITS.result.needed)


def test_the_page_needs_no_network_and_escapes_text() -> None:
    pytest.importorskip("plotly", reason="pip install vit_jax[report]")
    points = [Point("weak", FITS, 1.0), Point("strong", FITS, 0.9), Point("weak", TOO_LARGE, None)]
    tables = {"Plans": table.overview([FITS, TOO_LARGE]), "<b>": [("a",), ("<i>",)]}
    text = page.render([FITS, TOO_LARGE], title="a <b>", tables=tables, points=points)
    plotly_and_rest = text.partition("</head>")[2]
    assert not re.search(r"(src|href)=.?https?:", plotly_and_rest)
    assert "a &lt;b&gt;" in text and "&lt;i&gt;" in text and "<i>" not in plotly_and_rest
    assert all(
        word in text for word in ("Memory of a device", "Time of a step", "Chart of scaling")
    )
