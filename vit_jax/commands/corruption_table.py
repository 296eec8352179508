"""`evaluate --corrupt`: the evaluator that it adds, and the table that it prints."""

from collections.abc import Mapping

from vit_jax.evaluators import Robustness

NAME = "corrupt"  # of the evaluator among those of the config
EVERYTHING = "all"


def evaluator(text: str) -> Robustness:
    """The evaluator of corruptions that are joined by commas, or of all of them.

    Raises ValueError for an unknown name.
    """
    names = tuple(name.strip() for name in text.split(","))
    try:
        return Robustness() if names == (EVERYTHING,) else Robustness(corruptions=names)
    except ValueError as error:
        raise ValueError(f"--corrupt {text}: {error}, or {EVERYTHING}") from error


def lines(found: Mapping[str, float], measured: Robustness) -> list[str]:
    """Top-1 by corruption and severity: a table, and one of the average of the parameters."""
    tables = []
    for prefix, title in (("", "top-1 (%)"), ("ema_", "top-1 (%), average")):
        if f"{NAME}/{prefix}top1" in found:
            tables += _table(found, f"{NAME}/{prefix}top1", title, measured)
    return tables


def without(metrics: Mapping[str, float]) -> dict[str, float]:
    """The metrics that the table does not show."""
    return {name: value for name, value in metrics.items() if not name.startswith(f"{NAME}/")}


def _table(found: Mapping[str, float], key: str, title: str, measured: Robustness) -> list[str]:
    width = max(map(len, (title, *measured.corruptions)))
    header = "".join(f"{severity:>8}" for severity in (*measured.severities, "mean"))
    rows = [f"{title:{width}}{header}"]
    for name in measured.corruptions:
        values = [found[f"{key}_{name}_{severity}"] for severity in measured.severities]
        cells = "".join(f"{100 * value:8.2f}" for value in (*values, found[f"{key}_{name}"]))
        rows.append(f"{name:{width}}{cells}")
    mean = f"{100 * found[key]:8.2f}"
    return [*rows, f"{'mean':{width}}{mean:>{len(header)}}"]
