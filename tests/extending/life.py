"""The life of a run with a guest in it: trained, stopped, resumed, evaluated, loaded, saved."""

import dataclasses
import os
import pathlib
import signal
from typing import Any

import numpy as np
import pytest
from jax.sharding import Mesh

import vit_jax
from tests import cli, runs
from tests.compare import assert_same_bits
from vit_jax.config import Config
from vit_jax.data.record import DataFacts
from vit_jax.parallel import multihost
from vit_jax.training import run
from vit_jax.training.design import Design, design
from vit_jax.training.setup import Start

STOPPED = 128 + signal.SIGTERM
STEPS = ("--config.total.steps=4", "--config.checkpoint.every.steps=2")


class Life:
    """Runs of the tiny recipe in this process, through the command line, in one folder."""

    def __init__(self, folder: pathlib.Path, patch: pytest.MonkeyPatch) -> None:
        self.folder, self._patch = folder, patch
        self._recipe = runs.write_recipe(folder)  # a test may overwrite it
        self._designs: dict[Any, Design] = {}

    def train(self, name: str, *overrides: str, stop_after: int = 0) -> int:
        """Returns the exit code of `train`.

        After `stop_after` steps, or batches of an evaluation, it gets SIGTERM; 0: never.
        """
        with self._patch.context() as patch:
            patch.setattr(run, "design", self._design)
            if stop_after:
                patch.setattr(multihost, "told_to_stop", _signal_after(stop_after))
            return cli.train(self._recipe, self.folder / name, *STEPS, *overrides)

    def lives(self, *overrides: str) -> pathlib.Path:
        """Tests that a stopped and resumed run equals a whole run, whose folder it returns."""
        whole, halves = self.folder / "whole", self.folder / "halves"
        assert self.train("whole", *overrides) == 0
        assert self.train("halves", *overrides, stop_after=2) == STOPPED
        assert 0 < max(line["step"] for line in runs.lines(halves)) < 4
        assert self.train("halves", *overrides) == 0
        assert_same_bits(runs.arrays(whole), runs.arrays(halves))
        assert runs.lines(whole) == runs.lines(halves)
        assert cli.run("evaluate", "--workdir", whole) == 0
        assert_loads_as_saved(whole)
        return whole

    def _design(
        self, config: Config, facts: DataFacts, mesh: Mesh, *, start: Start, **given: Any
    ) -> Design:
        """The design of a run, which a run that goes on shares: it is traced once, not each time.

        A design is a pure function of the config, the data, the model and what is `given`. Runs
        that are killed, in other tests, are designed again when they go on.
        """
        if any(given.values()):
            return design(config, facts, mesh, start=start, **given)
        expects = start.preprocessing
        key = (config, facts, mesh, start.options, expects.mean, expects.std)
        if key not in self._designs:
            self._designs[key] = design(config, facts, mesh, start=start)
        return dataclasses.replace(self._designs[key], start=start)

    def refused(self, *overrides: str) -> None:
        """Tests that `train` refuses bad input; the caller checks the line on stderr."""
        assert self.train("refused", *overrides) == 2
        assert not (self.folder / "refused").exists()


def _signal_after(step: int):
    ask = multihost.told_to_stop

    def told_to_stop(count: int) -> bool:
        if count == step:
            os.kill(os.getpid(), signal.SIGTERM)
        return ask(count)

    return told_to_stop


def assert_loads_as_saved(workdir: pathlib.Path) -> None:
    """Tests that a model that is loaded, saved and loaded again computes the same bits."""
    model, path = vit_jax.load(workdir), workdir.with_name("saved")
    vit_jax.save(model, path)
    again = vit_jax.load(path)
    assert (again.options, again.preprocessing) == (model.options, model.preprocessing)
    options = model.options
    images = np.linspace(-1, 1, options.channels * np.prod(options.image_size), dtype=np.float32)
    images = images.reshape(1, *options.image_size, options.channels)
    np.testing.assert_array_equal(model(images), again(images))
