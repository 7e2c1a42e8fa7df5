"""Fixtures for tests of whole runs."""

import pytest


@pytest.fixture
def no_reports():
    """Runs of the test itself draw no report, which takes as long as training in these."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("training.commands.train.write_report", lambda folder: folder / "report.html")
        yield
