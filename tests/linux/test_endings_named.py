"""Each way to take too much ends within its timeout + 1 s, by its own name, and the host stays usable beside it."""

from __future__ import annotations

import os
import statistics
import subprocess
import threading
import time

import pytest

import kavach

pytestmark = [pytest.mark.needs("userns", "seccomp"), pytest.mark.landlock(6)]
PYTHON = "/usr/bin/python3"
TIMEOUT_S = 4
MIB = 1 << 20
PROGRAMS = {
    "fork bomb": ["sh", "-c", "bomb() { bomb | bomb & }; bomb; sleep 60"],
    "memory hog": [PYTHON, "-c", "kept = []\nwhile True: kept.append(bytearray(16 << 20))"],
    "descriptors": [PYTHON, "-c", "import os\nkept = []\nwhile True: kept.append(os.open('/dev/null', os.O_RDONLY))"],
    "disk": ["dd", "if=/dev/zero", "of=/workspace/big", "bs=1M", "count=4096"],
    "output": [PYTHON, "-c", "import os\nfor _ in range(1024): os.write(1, b'x' * (1 << 20))"],
    "escaping child": [
        "sh",
        "-c",
        "echo early; setsid sh -c 'trap \"\" TERM; (sleep 60 & sleep 60) & wait' & sleep 60",
    ],
    "processor time": [PYTHON, "-c", "while True: pass"],
    "file size": [
        PYTHON,
        "-c",
        "import signal; signal.signal(signal.SIGXFSZ, signal.SIG_DFL)\nf = open('big', 'wb', 0)\nwhile True: f.write(b'x' * 65536)",
    ],
}
LIMITS = {
    "descriptors": {"open_files": 256},
    "disk": {"disk_bytes": 32 * MIB},
    "output": {"output_bytes": MIB},
    "processor time": {"cpu_time_s": 1},
    "file size": {"file_size": MIB},
}
REASONS = {
    "fork bomb": {"timeout", "pids"},
    "memory hog": {"oom"},
    "descriptors": {"exit"},
    "disk": {"disk"},
    "output": {"exit"},
    "escaping child": {"timeout"},
    "processor time": {"signal"},
    "file size": {"signal"},
}


def _true_s():
    started = time.monotonic()
    subprocess.run(["/bin/true"], check=True)
    return time.monotonic() - started


class Beside:
    """Runs /bin/true again and again in another thread and keeps how long each took."""

    def __init__(self):
        self.took = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _run(self):
        while not self._stop.is_set():
            self.took.append(_true_s())
            self._stop.wait(0.02)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._stop.set()
        self._thread.join()


UNREAD = kavach.ExternalizationPolicy.off()  # how the wall ends a command; what the gate then reads takes its own time


@pytest.mark.parametrize("what", PROGRAMS)
def test_abuse_ends_in_time_with_its_reason_and_the_host_stays_usable(what):
    quiet = statistics.median(_true_s() for _ in range(20))
    policy = kavach.SandboxPolicy.strict(**LIMITS.get(what, {}))
    with kavach.Sandbox(policy=policy, externalization=UNREAD) as sandbox:
        with Beside() as beside:
            started = time.monotonic()
            result = sandbox.exec(PROGRAMS[what], timeout_s=TIMEOUT_S)
            took = time.monotonic() - started
        assert result.reason in REASONS[what], (result.reason, result.exit_code, result.stderr[-500:])
        assert took < TIMEOUT_S + 1
        assert statistics.median(beside.took) < 20 * quiet
        if what == "output":
            assert result.truncated_stdout
            assert len(result.stdout_bytes) == MIB
        if what == "escaping child":
            assert result.stdout == "early\n"
            time.sleep(0.1)
            assert sandbox.processes() == ()
        if what == "descriptors":
            assert "Too many open files" in result.stderr
        if what not in {"disk", "file size"}:
            assert sandbox.exec(["echo", "usable"]).stdout == "usable\n"


def test_output_limit_is_the_reason_when_asked_for():
    policy = kavach.SandboxPolicy.strict(output_bytes=MIB, output_action="kill")
    result = kavach.run(PROGRAMS["output"], policy=policy, timeout_s=TIMEOUT_S, externalization=UNREAD)
    assert result.reason == "output_limit"
    assert len(result.stdout_bytes) == MIB


BUILD = """
import subprocess, time
jobs = []
while len(jobs) < 200:
    try:
        jobs.append(subprocess.Popen(['sleep', '30']))
    except BlockingIOError:
        time.sleep(0.01)  # as make does: wait and try again
for job in jobs:
    job.wait()
"""


def test_build_of_200_processes_under_64_pids_ends_by_pids_and_does_not_hang():
    started = time.monotonic()
    result = kavach.run([PYTHON, "-c", BUILD], policy="strict", timeout_s=15)
    assert result.reason == "pids", (result.reason, result.stderr)
    assert time.monotonic() - started < 10
    assert "pids" in (result.limits_hit or ())


def test_positive_control_the_same_build_runs_with_room_for_it():
    build = BUILD.replace("'30'", "'0.1'")
    result = kavach.run([PYTHON, "-c", build], policy=kavach.SandboxPolicy.strict(max_pids=400), timeout_s=30)
    assert (result.reason, result.exit_code) == ("exit", 0), result.stderr


def test_output_before_a_timeout_is_kept():
    result = kavach.run(["sh", "-c", "echo one; echo two >&2; sleep 60"], policy="strict", timeout_s=0.5)
    assert (result.reason, result.stdout, result.stderr) == ("timeout", "one\n", "two\n")


def test_neighbour_of_a_timeout_says_so_where_commands_cannot_be_told_apart():
    with kavach.Sandbox(policy=kavach.SandboxPolicy.basic(max_pids=None)) as sandbox:
        other = sandbox.spawn(["sleep", "60"], timeout_s=None)
        late = sandbox.exec(["sleep", "60"], timeout_s=0.5)
        assert late.reason == "timeout"
        if os.geteuid() == 0:
            assert sandbox.exec(["echo", "usable"]).stdout == "usable\n"
        time.sleep(0.3)  # its own ending is reported a moment later
        alive = other.poll() is None
        if alive:
            other.kill()
        assert other.wait().reason == ("signal" if alive else "timeout_sibling")
