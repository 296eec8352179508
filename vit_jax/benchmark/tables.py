"""A benchmark as rows of text, for the terminal and for its page."""

from collections.abc import Sequence
from typing import Any

from vit_jax.benchmark.compare import Change
from vit_jax.benchmark.report import Report
from vit_jax.benchmark.samples import CONFIDENCE, Quantity

_NAMES = {"mfu": "MFU", "model_flops": "model FLOPs of a step"}
_SHARES = ("mfu", "prediction_error", "input_bound", "share_of_time_lost")
Rows = list[tuple[str, ...]]


def measured(report: Report) -> Rows:
    """A row for each quantity, after a row of titles."""
    rows: Rows = [("", "median", "p90", f"{CONFIDENCE:.0%} interval of the median", "measured")]
    for name, one in report.measured.items():
        count = len(one.values)
        shown = shown_as(one.median, one), shown_as(one.p90, one) if count > 1 else ""
        ends = " to ".join(shown_as(end, one) for end in one.interval) if count > 1 else ""
        times = f"{count} times" if count > 1 else "once"
        rows.append((name.replace("_", " "), *shown, ends, times))
    return rows


def results(report: Report) -> Rows:
    """A row for each result that is one value, after a row of titles."""
    rows: Rows = [("result", "value")]
    for name, value in report.results.items():
        if value not in (None, "") and not isinstance(value, list):
            rows.append((_NAMES.get(name, name.replace("_", " ")), _plain(name, value)))
    return rows


def scaling(report: Report) -> Rows:
    """A row for each number of devices, after a row of titles."""
    rows: Rows = [
        ("devices", "batch", "ms/step", "images/s", "per device", "efficiency", "speed-up")
    ]
    for point in report.results["points"]:
        sizes = str(point["devices"]), f"{point['batch_size']:,}", f"{point['seconds'] * 1e3:.2f}"
        rates = point["images_per_second"], point["images_per_second_per_device"]
        ratios = f"{point['efficiency']:.1%}", f"{point['speed_up']:.2f}"
        rows.append((*sizes, *(f"{rate:,.0f}" for rate in rates), *ratios))
    return rows


def changes(found: Sequence[Change]) -> Rows:
    """A row for each quantity that was measured before, after a row of titles."""
    rows: Rows = [("", "before", "now", "ratio", f"{CONFIDENCE:.0%} interval", "verdict")]
    for one in found:
        judged = one.verdict != "not judged"
        ends = " to ".join(f"{end:.3f}" for end in one.interval) if judged else ""
        shown = shown_as(one.old.median, one.old), shown_as(one.new.median, one.new)
        name = one.name.replace("_", " ")
        rows.append((name, *shown, f"{one.ratio:.3f}", ends, one.verdict))
    return rows


def shown_as(value: float, one: Quantity) -> str:
    if one.unit == "bytes":
        return f"{value / 2**20:,.1f} MiB"
    if value < 1e-3:
        return f"{value * 1e6:.1f} us"
    return f"{value:.2f} s" if value >= 10 else f"{value * 1e3:.2f} ms"


def _plain(name: str, value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {item}" for key, item in value.items())
    if name in _SHARES:
        return f"{value:.1%}"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if "flops" in name:
        return f"{value:.4g}"
    if isinstance(value, float):
        return f"{value:.4g}" if value < 100 or value >= 1e9 else f"{value:,.0f}"
    return f"{value:,}" if isinstance(value, int) else str(value)
