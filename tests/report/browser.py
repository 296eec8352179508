"""A real browser that opens a page, without a network."""

import pathlib
import re
import shutil
import subprocess

import numpy as np
import PIL.Image
import pytest

from tests.patience import limit

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")


class Seen:
    """What a browser has made of a page."""

    def __init__(self, page: pathlib.Path, folder: pathlib.Path) -> None:
        """Opens the page; skips the test if there is no browser."""
        program = next(filter(None, map(shutil.which, NAMES)), None)
        if program is None:
            pytest.skip(f"no browser: none of {', '.join(NAMES)} is installed")
        picture = folder / "seen.png"
        done = subprocess.run(
            [
                *(program, "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom"),
                *(f"--user-data-dir={folder / 'browser'}", "--host-resolver-rules=MAP * ~NOTFOUND"),
                *("--enable-logging=stderr", "--virtual-time-budget=30000", "--hide-scrollbars"),
                *("--window-size=1000,4000", f"--screenshot={picture}", page.as_uri()),
            ],
            capture_output=True,
            text=True,
            timeout=limit(120),
        )
        assert done.returncode == 0, done.stderr
        self.dom = done.stdout
        self.console = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
        with PIL.Image.open(picture) as image:
            self.pixels = np.asarray(image.convert("RGB"))

    @property
    def charts(self) -> tuple[int, int]:
        """The charts of the page, and those of them that were drawn."""
        drawn = re.findall(r'class="chart js-plotly-plot"', self.dom)
        return len(re.findall(r'<div class="chart', self.dom)), len(drawn)
