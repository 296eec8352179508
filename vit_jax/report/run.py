"""What a report knows of a run."""

import dataclasses
import datetime
import functools
import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from vit_jax.checkpoints.card import Card
from vit_jax.config import Config
from vit_jax.evaluators import HELD_OUT
from vit_jax.objectives import Direction
from vit_jax.workdir import lines as metric_lines
from vit_jax.workdir.sessions import Session

EVAL, AVERAGE = "eval_", "ema_"  # how the names of metrics of evaluations begin
COUNTS = ("count", "unlabelled", "broken")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Run:
    """A run, finished or not."""

    workdir: str
    name: str  # a short name, different from those of the other runs of the report
    config: Config
    fields: Mapping[str, Any]  # every field of the config by its path
    decisive: Mapping[str, Any]  # those of them that change the result
    card: Card
    train_size: int  # training images; 0: unknown
    eval_size: int
    metrics: metric_lines.Lines
    sessions: Sequence[Session]  # the oldest first; none if they were not recorded

    @functools.cached_property
    def lines(self) -> list[tuple[int, dict[str, float]]]:
        """Step and numbers of each line of metrics.jsonl, in the order of the steps."""
        found = [(line["step"], metric_lines.numbers(line)) for line in self.metrics.good]
        return sorted(found, key=lambda line: line[0])

    @property
    def step(self) -> int:
        """The last step that was logged."""
        return self.lines[-1][0] if self.lines else 0

    @property
    def total(self) -> int:
        """The steps of the whole run; 0: unknown."""
        if not self.train_size and (self.config.total.epochs or self.config.total.percent):
            return 0
        return self.config.total.to_steps(
            batch_size=self.config.batch_size, dataset_size=self.train_size
        )

    @functools.cached_property
    def names(self) -> list[str]:
        """The names of all metrics, in the order in which they were logged first."""
        return list(dict.fromkeys(name for _, values in self.lines for name in values))

    def points(self, name: str) -> list[tuple[int, float]]:
        """The steps and values of a metric."""
        return [(step, values[name]) for step, values in self.lines if name in values]

    @functools.cached_property
    def directions(self) -> dict[str, Direction]:
        """Whether the largest or the smallest value of a metric is the best, by names in lines."""
        found: dict[str, Direction] = {}
        for evaluator, kind in self.config.evaluators.items():
            prefix = EVAL if evaluator == HELD_OUT else f"{EVAL}{evaluator}/"
            for metric, direction in kind.metrics(self.config.objective).items():
                found[prefix + metric] = found[f"{prefix}{AVERAGE}{metric}"] = direction
        return found

    @property
    def main(self) -> list[str]:
        """The first metric of each evaluator, which were measured, then the held-out loss."""
        first: dict[str, str] = {}
        for name in self.directions:
            if self.points(name):
                first.setdefault(name.rpartition("/")[0], name)
        loss = f"{EVAL}loss"
        return [*first.values(), *([loss] if loss in self.names else [])]

    @functools.cached_property
    def step_seconds(self) -> float:
        """Seconds in training steps, from the measured images per second.

        Compilation, evaluations and checkpoints are not among them. 0: unknown.
        """
        seconds, before = 0.0, 0
        for step, rate in self.points("images_per_second"):
            seconds += (step - before) * self.config.batch_size / rate if rate > 0 else 0.0
            before = step
        return seconds if math.isfinite(seconds) else 0.0  # a rate may be damaged

    @property
    def rate(self) -> float:
        """The median of the images per second; 0: unknown."""
        rates = [rate for _, rate in self.points("images_per_second")]
        return statistics.median(rates) if rates else 0.0

    @property
    def wall_seconds(self) -> float:
        """Seconds from beginning to end of all sessions; 0 unless all of them are known.

        A version that recorded no sessions may have begun the run.
        """
        if not self.sessions or self.sessions[0].get("step") != 0:
            return 0.0
        spans = [_seconds(session) for session in self.sessions]
        return 0.0 if None in spans else sum(span for span in spans if span)

    @property
    def spent(self) -> dict[str, float]:
        """Seconds of each part of all sessions outside training steps; empty unless all are known.

        Waiting for data is a part of the training steps too.
        """
        total: dict[str, float] = {}
        for session in self.sessions if self.wall_seconds else ():
            parts = session.get("seconds")
            if not isinstance(parts, dict):
                return {}
            for part, seconds in parts.items():
                if not isinstance(seconds, int | float) or not 0 <= seconds < math.inf:
                    return {}
                total[str(part)] = total.get(str(part), 0.0) + seconds
        return total if all(map(math.isfinite, total.values())) else {}

    @property
    def machine(self) -> Mapping[str, Any]:
        """Facts about the machine of the last session; empty if unknown."""
        found = self.sessions[-1].get("machine") if self.sessions else None
        return found if isinstance(found, dict) else {}

    @property
    def commands(self) -> list[str]:
        """The different commands of the sessions, the oldest first."""
        found = (session.get("command") for session in self.sessions)
        return list(dict.fromkeys(one for one in found if isinstance(one, str) and one))


def _seconds(session: Session) -> float | None:
    """The seconds of a session; None if its begin or end is unknown."""
    try:
        began, ended = (datetime.datetime.fromisoformat(session[key]) for key in ("began", "ended"))
        return (ended - began).total_seconds()
    except (KeyError, TypeError, ValueError):
        return None
