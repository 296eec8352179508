"""The fixture in which a guest is tested."""

import pytest

from tests.extending.life import Life


@pytest.fixture
def life(tmp_path, monkeypatch) -> Life:
    return Life(tmp_path, monkeypatch)
