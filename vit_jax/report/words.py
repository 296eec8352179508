"""Numbers, names of metrics and times, as a report shows them."""

from vit_jax.report.run import AVERAGE, EVAL

_WORDS = {"ece": "calibration error (ECE)"}


def metric(name: str) -> str:
    """A metric of metrics.jsonl in words: `near: top-1, average` for `eval_near/ema_top1`."""
    evaluator, slash, own = name.removeprefix(EVAL).rpartition("/")
    plain = own.removeprefix(AVERAGE)
    kind, _, rest = plain.partition("_")
    if is_share(name):
        plain = f"top-{kind.removeprefix('top')}{f' {rest}' if rest else ''}"
    else:
        plain = _WORDS.get(plain) or plain.replace("_", " ")
    average = ", average" if own.startswith(AVERAGE) else ""
    return f"{evaluator}{': ' if slash else ''}{plain}{average}"


def is_share(name: str) -> bool:
    """Whether a metric is shown as a percentage."""
    own = name.removeprefix(EVAL).rpartition("/")[2].removeprefix(AVERAGE)
    return own.partition("_")[0] in ("top1", "top5")


def value(name: str, number: float) -> str:
    return f"{100 * number:.2f}%" if is_share(name) else f"{number:.4g}"


def spread(name: str, mean: float, deviation: float) -> str:
    """A mean with its spread, such as `71.68% ± 0.27`."""
    if is_share(name):
        return f"{100 * mean:.2f}% ± {100 * deviation:.2f}"
    return f"{mean:.4g} ± {deviation:.2g}"


def duration(seconds: float) -> str:
    """Such as `2 h 05 min`, `3 min 20 s` or `12 s`."""
    whole = round(seconds)
    minutes, hours = whole // 60, whole // 3600
    if hours:
        return f"{hours} h {minutes % 60:02d} min"
    return f"{minutes} min {whole % 60:02d} s" if minutes else f"{whole} s"
