"""What a third party's wall must do, as a test class; and a wall that plays it in memory.

    from kavach.testing import WallContract

    class TestMyWall(WallContract):
        backend = "mywall"                    # registered by the entry point group `kavach.backends`
        lacks = frozenset({"pause"})          # what this wall refuses with UnsupportedError

pytest collects the methods. Guarantees: a wall that passes behaves, behind `Sandbox`, as the documents say every wall
does. Does not: measure isolation (the escape suite does). May be called by: tests.
"""

from __future__ import annotations

from kavach.testing.contract import WallContract
from kavach.testing.fake import FakeWall

__all__ = ["FakeWall", "WallContract"]
