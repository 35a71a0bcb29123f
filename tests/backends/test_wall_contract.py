"""One contract for every wall that starts here, and for the fake."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

import kavach
from kavach import Backend, BackendUnavailable, Sandbox, backends
from kavach.testing import FakeWall, WallContract

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def registered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Install a distribution that adds the fake as wall `fakewall`, and tries to take `process` over."""
    info = tmp_path / "fakewall-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: fakewall\nVersion: 1.0\n")
    lines = "fakewall = kavach.testing:FakeWall\nprocess = kavach.testing:FakeWall\n"
    (info / "entry_points.txt").write_text(f"[{backends.ENTRY_POINTS}]\n{lines}")
    monkeypatch.syspath_prepend(tmp_path)
    backends.third_party.cache_clear()
    backends.probe.cache_clear()
    yield
    monkeypatch.undo()
    sys.path_importer_cache.clear()
    backends.third_party.cache_clear()
    backends.probe.cache_clear()


@pytest.mark.needs("userns")
class TestProcessWall(WallContract):
    backend = "process"
    policy = "basic"


@pytest.mark.needs("userns")
class TestProcessWallUnderStrict(WallContract):
    backend = "process"
    policy = "strict"


class TestNoop(WallContract):
    backend = "noop"
    lacks = frozenset({"run", "spawn", "files"})


@pytest.mark.usefixtures("registered")
class TestThirdPartyWall(WallContract):
    backend = "fakewall"

    def test_it_is_found_by_its_entry_point_in_any_case(self) -> None:
        assert "fakewall" in backends.names()
        assert backends.load_backend("FakeWall") is FakeWall
        assert kavach.run(["echo", "hi"], backend="fakewall", policy="minimal").stdout == "hi\n"

    def test_it_cannot_take_over_a_name_of_ours(self) -> None:
        assert backends.load_backend("process") is not FakeWall
        assert "process" not in backends.third_party()

    def test_it_is_not_one_of_the_enums_ten(self) -> None:
        assert "fakewall" not in {wall.value for wall in Backend.all()}


def test_unregistered_wall_is_unavailable_by_name() -> None:
    with pytest.raises(BackendUnavailable, match="fakewall"):
        Sandbox(backend="fakewall")
