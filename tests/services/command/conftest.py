"""What tests of commands that see a run through need."""

import pytest

from services.command import preflight
from services.entry import REDIS_URL_VARIABLE


@pytest.fixture
def no_preflight(monkeypatch: pytest.MonkeyPatch) -> None:
    """The settings name a model and data that are not there: what preflight says of them has tests of its own."""
    monkeypatch.setattr(preflight, "check", lambda config: preflight.Checked())
    monkeypatch.delenv(REDIS_URL_VARIABLE, raising=False)
