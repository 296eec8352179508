"""What a run is, as a table of facts, and how to repeat it."""

import datetime
import shlex
from collections.abc import Callable

from vit_jax.models import flops
from vit_jax.parallel import machine
from vit_jax.report import words
from vit_jax.report.run import Run


def of(run: Run) -> dict[str, str]:
    """The facts by what they are about; those that are not known are left out."""
    made: dict[str, Callable[[Run], str]] = {
        "folder": lambda run: run.workdir,
        "model": _model,
        "started from": lambda run: run.config.init_from,
        "objective": lambda run: str(run.fields["objective.name"]),
        "trained parts": _tuned,
        "data": _data,
        "length": _length,
        "optimizer": _optimizer,
        "evaluators": _evaluators,
        "trained (UTC)": _sessions,
        "time": _time,
        "rate": _rate,
        "machine": lambda run: machine.described(run.machine) if _known(run) else "",
        "mesh": _mesh,
    }
    found = {about: say(run) for about, say in made.items()}
    return {about: text for about, text in found.items() if text}


def commands(run: Run) -> list[str]:
    """What trains the run again, in another folder; nothing if that is not known."""
    if run.commands:
        return run.commands
    if run.fields.get("data.source") == "given":  # the images of a Python program
        return []
    program = (
        "import json, sys, vit_jax, vit_jax.config;"
        " fields = json.load(open(sys.argv[1]));"
        " vit_jax.train(vit_jax.config.of_fields(fields), sys.argv[2])"
    )
    folders = (f"{run.workdir}/config.json", f"{run.workdir}-again")
    return [shlex.join(["python", "-c", program, *folders])]


def warnings(run: Run) -> list[str]:
    """What the reader should know before the numbers."""
    found = []
    if not run.lines:
        found.append("the run has logged no metrics")
    elif run.total and run.step < run.total:
        found.append(f"the run is not finished: {run.step:,} of {run.total:,} steps")
    if run.metrics.bad:
        what = "1 line is" if run.metrics.bad == 1 else f"{run.metrics.bad} lines are"
        found.append(f"metrics.jsonl: {what} damaged and left out")
    return found


def _model(run: Run) -> str:
    options = run.card.options
    height, width = options.image_size
    name = run.config.model.name or f"model of {run.config.init_from}"
    classes = f"{options.num_classes:,} classes" if options.num_classes else ""
    cost = flops.forward(options) / 1e9
    parts = (
        name,
        f"{flops.parameters(options):,} parameters",
        f"{cost:.3g} GFLOPs for a forward pass of one image",
        f"images {height}x{width}",
        classes,
    )
    return ", ".join(part for part in parts if part)


def _tuned(run: Run) -> str:
    """The kind of fine-tuning with its fields, if not all parameters are trained."""
    fields = {path: v for path, v in run.fields.items() if path.startswith("tune.")}
    kind = fields.pop("tune.kind", "full")
    own = ", ".join(f"{path.removeprefix('tune.')} {value}" for path, value in fields.items())
    return "" if kind == "full" else f"{kind}{own and f' ({own})'}"


def _data(run: Run) -> str:
    data = run.fields
    where = data.get("data.name") or data.get("data.path") or ""
    counts = (
        f"{number:,} {what}"
        for number, what in (
            (run.train_size, "training images"),
            (run.eval_size, "held-out images"),
        )
        if number
    )
    parts = (f"{data['data.source']}{f' {where}' if where else ''}", *counts)
    return ", ".join(parts)


def _length(run: Run) -> str:
    steps = f"{run.step:,} of {run.total:,} steps" if run.total else f"{run.step:,} steps"
    seen = run.step * run.config.batch_size
    epochs = f"{seen / run.train_size:.4g} epochs, " if run.train_size else ""
    return f"{steps}, {epochs}batch {run.config.batch_size:,}, seed {run.config.seed}"


def _optimizer(run: Run) -> str:
    fields = run.fields
    decay = fields.get("optimizer.weight_decay")
    parts = (
        str(fields["optimizer.name"]),
        f"learning rate {fields['optimizer.learning_rate']:g}",
        f"weight decay {decay:g}" if isinstance(decay, int | float) else "",
    )
    return ", ".join(part for part in parts if part)


def _evaluators(run: Run) -> str:
    named = []
    for name in run.config.evaluators:
        kind = str(run.fields.get(f"evaluators.{name}.kind", name))
        named.append(name if name == kind else f"{name} ({kind})")
    return ", ".join(named)


def _sessions(run: Run) -> str:
    if not run.sessions:
        return ""
    began, ended = run.sessions[0].get("began"), run.sessions[-1].get("ended")
    number = f", in {len(run.sessions)} sessions" if len(run.sessions) > 1 else ""
    return f"{_date(began)} to {_date(ended)}{number}"


def _date(text: object) -> str:
    try:
        return datetime.datetime.fromisoformat(str(text)).strftime("%Y-%m-%d %H:%M")
    except ValueError:
        return "unknown"


def _time(run: Run) -> str:
    """Time in steps, its share of all time, and the time of all devices."""
    if not run.step_seconds:
        return ""
    text = f"{words.duration(run.step_seconds)} in training steps"
    if run.wall_seconds:
        share = min(run.step_seconds / run.wall_seconds, 1.0)  # the clocks are rounded
        text += f", {share:.0%} of {words.duration(run.wall_seconds)} from start to end"
    if run.spent:
        parts = dict(run.spent)
        waiting = words.duration(parts.pop("data", 0.0))
        others = ", ".join(f"{part} {words.duration(s)}" for part, s in parts.items())
        text += f" ({others}); {waiting} of the steps waiting for data"
    devices = run.machine.get("devices")
    if type(devices) is int:
        seconds = run.wall_seconds or run.step_seconds
        text += f"; {seconds * devices / 3600:.3g} device-hours"
    return text


def _rate(run: Run) -> str:
    return f"{run.rate:,.0f} images per second (median)" if run.rate else ""


def _known(run: Run) -> bool:
    """Whether the machine of the run is known; the file may have been damaged."""
    names = ("device_kind", "devices", "host_cores", "processor", "versions")
    there = all(name in run.machine for name in names)
    if not there or type(run.machine["devices"]) is not int:
        return False
    return isinstance(run.machine["versions"], dict)


def _mesh(run: Run) -> str:
    mesh = run.sessions[-1].get("mesh") if run.sessions else None
    if not isinstance(mesh, dict):
        return ""
    processes = run.machine.get("processes")
    number = f"; {processes} processes" if isinstance(processes, int) and processes > 1 else ""
    return ", ".join(f"{axis} {size}" for axis, size in mesh.items()) + number
