"""A live socket of the host that the view shows is a hole, and the strength says so (process-traps 24)."""

from __future__ import annotations

import socket
import tempfile
from pathlib import Path

import pytest

import kavach
from kavach.model.enforcement import Hole

pytestmark = pytest.mark.needs("userns")


@pytest.fixture
def listening():
    with tempfile.TemporaryDirectory(prefix="kv-", dir="/var/tmp") as folder:
        Path(folder).chmod(0o755)
        path = f"{folder}/s"
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(path)
            Path(path).chmod(0o777)
            server.listen(8)
            yield path


def test_minimal_scores_no_more_than_29_while_a_host_socket_answers(listening):
    result = kavach.run(["true"], policy="minimal")
    assert Hole.HOST_SOCKET_REACHABLE in result.enforcement.holes
    assert int(result.score) <= 29


def test_basic_does_not_show_the_socket_and_keeps_its_strength(listening):
    result = kavach.run(["sh", "-c", f"test -e {listening}"], policy="basic")
    assert result.exit_code == 1
    assert result.enforcement.holes == ()
