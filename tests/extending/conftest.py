"""A folder in which a guest lives."""

import pytest

from tests.extending.life import Life


@pytest.fixture
def life(tmp_path, monkeypatch) -> Life:
    return Life(tmp_path, monkeypatch)
