"""A program started through the door ends in time, says what it said, and inherits nothing."""

from __future__ import annotations

import os
import sys
import time

import pytest

from kavach import runtimes
from kavach.errors import BackendError, BackendUnavailable, ConfigError

TIMEOUT_S = 30


def python(source: str, **options):
    return runtimes.run([sys.executable, "-I", "-S", "-c", source], timeout_s=TIMEOUT_S, **options)


def test_output_streams_and_exit_code_come_back_apart():
    done = python("import os; os.write(1, b'out'); os.write(2, b'err'); os._exit(7)")
    assert (done.returncode, done.stdout, done.stderr, done.truncated) == (7, b"out", b"err", False)


def test_a_signal_is_a_negative_return_code():
    assert python("import os; os.kill(os.getpid(), 9)").returncode == -9


def test_input_larger_than_a_pipe_is_delivered_whole():
    sent = os.urandom(300_000)
    done = python("import sys, shutil; shutil.copyfileobj(sys.stdin.buffer, sys.stdout.buffer)", input=sent)
    assert done.stdout == sent


def test_input_that_nobody_reads_is_no_error():
    assert python("pass", input=b"x" * 300_000).returncode == 0


def test_without_input_stdin_is_at_its_end():
    assert python("import sys; print(len(sys.stdin.read()))").stdout == b"0\n"


def test_the_hosts_environment_and_folder_do_not_reach_the_program(monkeypatch):
    monkeypatch.setenv("KAVACH_TEST_KEY", "secret")
    done = python("import os; print('KAVACH_TEST_KEY' in os.environ, os.getcwd())")
    assert done.stdout == b"False /\n"


def test_no_descriptor_but_three_reaches_the_program():
    reading, writing = os.pipe()
    os.set_inheritable(writing, True)
    try:
        done = python("import os; print(sorted(map(int, os.listdir('/proc/self/fd')))[:4])")
    finally:
        os.close(reading)
        os.close(writing)
    assert done.stdout == b"[0, 1, 2, 3]\n"  # 3 is the listing itself


def test_the_deadline_kills_the_whole_group():
    source = "import os, sys, time\npid = os.fork()\nif pid: os.write(2, str(pid).encode())\ntime.sleep(60)\n"
    started = time.monotonic()
    with pytest.raises(BackendError, match=r"did not end within 1 s") as caught:
        runtimes.run([sys.executable, "-I", "-S", "-c", source], timeout_s=1)
    assert time.monotonic() - started < 10
    grandchild = int(caught.value.stderr_tail)
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline and is_running(grandchild):
        time.sleep(0.01)
    assert not is_running(grandchild)


def is_running(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii") as stat:
            return stat.read().rpartition(")")[2].split()[0] not in {"Z", "X"}
    except OSError:
        return False


def test_a_background_process_that_keeps_the_pipes_does_not_hold_the_result_up():
    source = "import os, time\nif os.fork() == 0: time.sleep(8); os._exit(0)\nprint('done', flush=True)"
    started = time.monotonic()
    done = python(source)
    assert (done.returncode, done.stdout) == (0, b"done\n")
    assert time.monotonic() - started < 5


def test_output_beyond_the_limit_is_cut_and_said():
    done = python("import os\nfor _ in range(50): os.write(1, b'x' * 1000)", output_limit_bytes=1500)
    assert (len(done.stdout), done.truncated) == (1500, True)


def test_output_of_exactly_the_limit_is_whole():
    done = python("import os; os.write(1, b'x' * 1500)", output_limit_bytes=1500)
    assert (len(done.stdout), done.truncated) == (1500, False)


def test_an_absent_program_is_named():
    with pytest.raises(BackendUnavailable, match="no-such-program-here") as caught:
        runtimes.run(["no-such-program-here"], timeout_s=TIMEOUT_S)
    assert caught.value.missing == ("no-such-program-here",)


def test_an_absent_folder_is_named():
    with pytest.raises(BackendUnavailable, match="/no/such/folder"):
        runtimes.run([sys.executable], timeout_s=TIMEOUT_S, cwd="/no/such/folder")


def test_an_empty_argv_and_a_nul_are_the_callers_mistake():
    with pytest.raises(ConfigError, match="empty"):
        runtimes.run([], timeout_s=TIMEOUT_S)
    with pytest.raises(ConfigError, match="null byte"):
        runtimes.run(["true", "a\0b"], timeout_s=TIMEOUT_S)


def test_without_pidfd_the_end_is_still_seen(monkeypatch):
    def refused(_pid, _flags=0):
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(os, "pidfd_open", refused)
    assert python("print('old kernel')").stdout == b"old kernel\n"


def test_an_exit_status_that_was_taken_is_not_reported_as_success(monkeypatch):
    import signal

    before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    try:
        with pytest.raises(BackendError, match="exit status was taken"):
            python("raise SystemExit(3)")
    finally:
        signal.signal(signal.SIGCHLD, before)


def test_the_door_leaves_no_descriptor_behind():
    before = len(os.listdir("/proc/self/fd"))
    python("pass", input=b"x")
    with pytest.raises(BackendError):
        runtimes.run(["/bin/sleep", "9"], timeout_s=0.05)
    assert len(os.listdir("/proc/self/fd")) == before
