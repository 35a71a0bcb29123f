"""A wall without a kernel, for tests of the code around a wall."""

from __future__ import annotations

import sys

import pytest

from kavach import backends


@pytest.fixture
def fake(tmp_path, monkeypatch):
    """Return the fields of a sandbox whose wall is `kavach.testing.FakeWall`, registered as `fakewall`."""
    info = tmp_path / "fakewall-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: fakewall\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[{backends.ENTRY_POINTS}]\nfakewall = kavach.testing:FakeWall\n")
    monkeypatch.syspath_prepend(tmp_path)
    backends.third_party.cache_clear()
    yield {"backend": "fakewall", "policy": "minimal"}
    monkeypatch.undo()
    sys.path_importer_cache.clear()
    backends.third_party.cache_clear()
