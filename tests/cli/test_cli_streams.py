"""What happens to the streams of `kavach run`: terminals, readers that go, full disks, signals, secrets."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import time
import uuid

import pytest
from command_line import DEADLINE_S, KAVACH, environment, kavach, lives, start

pytestmark = pytest.mark.needs("linux", "userns")
ESCAPES = r"printf '\033]52;c;aGk=\007\302\2331m\233\177\r\302\205 caf\303\251\tend\n'"
SOON_S = 10


def on_a_terminal(*words, stdin_too=False, stderr_too=False):
    """Run with a terminal as standard output and return (what it was sent, the exit code)."""
    master, slave = os.openpty()
    with open(master, "rb", buffering=0) as screen:
        process = subprocess.Popen(
            [*KAVACH, *words],
            stdin=slave if stdin_too else subprocess.DEVNULL,
            stdout=slave,
            stderr=slave if stderr_too else subprocess.DEVNULL,
            env=environment(NO_COLOR="1"),
        )
        os.close(slave)
        shown = b""
        try:
            while chunk := screen.read(4096):
                shown += chunk
        except OSError:  # EIO: the last writer has gone
            pass
        return shown, process.wait(DEADLINE_S)


def wait_until(happens):
    deadline = time.monotonic() + SOON_S
    while time.monotonic() < deadline:
        if happens():
            return True
        time.sleep(0.05)
    return False


def test_terminal_gets_no_control_character_of_the_command():
    shown, code = on_a_terminal("run", "--", "sh", "-c", ESCAPES)
    assert code == 0
    assert shown.decode() == "^[]52;c;aGk=^G\\x9b1m\\x9b^?^M\\x85 café\tend\r\n"  # the last CR is the terminal's own


def test_raw_passes_control_characters_on():
    shown, _ = on_a_terminal("run", "--raw", "--", "sh", "-c", ESCAPES)
    assert b"\x1b]52;c;aGk=\x07" in shown


def test_pipe_gets_the_exact_bytes():
    assert kavach("run", "--", "sh", "-c", ESCAPES).stdout.startswith(
        b"\x1b]52;c;aGk=\x07\xc2\x9b1m\x9b\x7f\r\xc2\x85 "
    )


def test_standard_error_on_a_terminal_is_made_visible_too():
    shown, _ = on_a_terminal("run", "--", "sh", "-c", f"{ESCAPES} >&2", stderr_too=True)
    assert b"^[]52;c;aGk=^G" in shown
    assert b"\x1b" not in shown


def test_program_name_with_escapes_is_made_visible_in_our_own_words():
    done = kavach("run", "--policy", "\x1b]52;c;aGk=\x07.toml", "--", "true")
    assert done.returncode == 125
    assert b"\x1b" not in done.stderr


def test_command_never_gets_the_callers_terminal():
    probe = (
        "for n in 0 1 2; do test -t $n && echo terminal $n; done; (: < /dev/tty) 2>/dev/null && echo tty; cat; echo end"
    )
    shown, code = on_a_terminal("run", "--", "sh", "-c", probe, stdin_too=True, stderr_too=True)
    assert code == 0
    assert b"terminal" not in shown
    assert b"tty" not in shown
    assert shown.rstrip().endswith(b"end")


def test_table_is_aligned_on_a_terminal_and_tabbed_elsewhere():
    shown, _ = on_a_terminal("backends")
    assert b"\t" not in shown
    assert kavach("backends").stdout.startswith(b"wall\tavailable\t")


def test_output_comes_while_the_command_runs():
    process = start("run", "--", "sh", "-c", "echo first; read line; echo got $line", stdin=-1, stdout=-1, stderr=-1)
    assert process.stdout.readline() == b"first\n"
    process.stdin.write(b"second\n")
    process.stdin.flush()
    assert process.stdout.readline() == b"got second\n"
    process.communicate(timeout=DEADLINE_S)
    assert process.returncode == 0


def test_binary_input_of_many_pipes_comes_back_exactly(tmp_path):
    content = os.urandom(700_000)
    done = kavach("run", "--", "cat", stdin=content)
    assert (done.returncode, done.stdout == content) == (0, True)
    source = tmp_path / "input"
    source.write_bytes(content)
    with source.open("rb") as file:
        again = subprocess.run(
            [*KAVACH, "run", "--", "sha256sum"], stdin=file, capture_output=True, env=environment(), timeout=DEADLINE_S
        )
    import hashlib

    assert again.stdout.split()[0].decode() == hashlib.sha256(content).hexdigest()


def test_input_that_nobody_reads_does_not_hold_the_end_up():
    with subprocess.Popen(["yes"], stdout=subprocess.PIPE) as endless:
        done = subprocess.run(
            [*KAVACH, "run", "--", "true"],
            stdin=endless.stdout,
            capture_output=True,
            env=environment(),
            timeout=DEADLINE_S,
        )
        endless.kill()
    assert done.returncode == 0


def test_folder_or_writable_file_as_input_is_no_door_to_the_host(tmp_path):
    victim = tmp_path / "victim"
    victim.write_text("before")
    victim.chmod(0o666)
    tmp_path.chmod(0o777)
    act = "echo after > /proc/self/fd/0; cat /proc/self/fd/0/victim; ls -a /proc/self/fd/0/.. ; true"

    def run_on(path, flags):
        handle = os.open(path, flags)
        try:
            kavach_done = subprocess.run(
                [*KAVACH, "run", "--policy", "minimal", "--", "sh", "-c", act],
                stdin=handle,
                capture_output=True,
                env=environment(),
                timeout=DEADLINE_S,
            )
            outside = subprocess.run(["sh", "-c", act], stdin=handle, capture_output=True)
        finally:
            os.close(handle)
        return kavach_done, outside

    inside, outside = run_on(victim, os.O_RDWR)
    assert victim.read_text() == "after\n", "the control: outside, the act succeeds"
    victim.write_text("before")
    inside, outside = run_on(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    assert b"before" in outside.stdout
    assert b"before" not in inside.stdout
    handle = os.open(victim, os.O_RDWR)
    subprocess.run([*KAVACH, "run", "--", "sh", "-c", act], stdin=handle, capture_output=True, env=environment())
    os.close(handle)
    assert victim.read_text() == "before"


def test_reader_that_goes_ends_the_command_quietly():
    marker = f"marker-{uuid.uuid4()}"
    process = start("run", "--", "sh", "-c", "while :; do echo y; done", marker, stdout=-1, stderr=-1, stdin=-3)
    assert process.stdout.read(2) == b"y\n"
    process.stdout.close()
    said = process.stderr.read()
    process.stderr.close()
    assert process.wait(DEADLINE_S) == 141
    assert b"Traceback" not in said
    assert wait_until(lambda: not lives(marker))


def test_full_standard_output_is_said_and_ends_the_command():
    with open("/dev/full", "wb") as full:
        process = start("run", "--", "sh", "-c", "echo x; sleep 60", stdout=full, stderr=-1, stdin=-3)
        said = process.communicate(timeout=DEADLINE_S / 3)[1]
    assert process.returncode == 125
    assert b"kavach: standard output: No space left on device" in said


def test_closed_streams_do_not_become_files_of_ours():
    script = f'exec {sys.executable} -m kavach run -- sh -c "ls /proc/self/fd | wc -l" <&- 2>&-'
    done = subprocess.run(["sh", "-c", script], stdout=subprocess.PIPE, env=environment(), timeout=DEADLINE_S)
    assert (done.returncode, done.stdout) == (0, b"4\n")


def test_descriptor_of_the_caller_does_not_reach_the_command(tmp_path):
    kept = tmp_path / "kept"
    kept.write_text("secret")
    with kept.open() as file:
        os.set_inheritable(file.fileno(), True)
        done = kavach("run", "--", "ls", "/proc/self/fd", pass_fds=(file.fileno(),))
    assert done.stdout.split() == [b"0", b"1", b"2", b"3"]  # 3 is the folder that ls reads


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP], ids=lambda number: number.name)
def test_signal_ends_the_command_and_exits_with_its_number(number):
    marker = f"marker-{uuid.uuid4()}"
    kept = signal.signal(number, signal.SIG_DFL)  # who started the tests may ignore it, and the command would too
    try:
        process = start("run", "--", "sh", "-c", "echo up; sleep 60; true", marker, stdout=-1, stderr=-1, stdin=-3)
    finally:
        signal.signal(number, kept)
    assert process.stdout.readline() == b"up\n"
    process.send_signal(number)
    _, said = process.communicate(timeout=SOON_S)
    assert process.returncode == 128 + number
    assert f"kavach: ended by {number.name}" in said.decode()
    assert b"Traceback" not in said
    assert wait_until(lambda: not lives(marker))


def test_signal_lets_the_command_say_its_last_words():
    command = 'trap "echo bye; exit 0" TERM; echo up; while :; do sleep 0.05; done'
    process = start("run", "--", "sh", "-c", command, stdout=-1, stderr=-1, stdin=-3)
    assert process.stdout.readline() == b"up\n"
    process.terminate()
    shown, _ = process.communicate(timeout=SOON_S)
    assert (process.returncode, shown) == (143, b"bye\n")


def test_ignored_signal_stays_ignored():
    command = f"trap '' INT; exec {sys.executable} -m kavach run -- sh -c 'echo up; sleep 1; echo done'"
    process = subprocess.Popen(["sh", "-c", command], stdout=-1, stderr=-3, stdin=-3, env=environment())
    assert process.stdout.readline() == b"up\n"
    process.send_signal(signal.SIGINT)
    shown, _ = process.communicate(timeout=DEADLINE_S)
    assert (process.returncode, shown) == (0, b"done\n")


def test_killed_command_line_leaves_nothing_behind():
    marker = f"marker-{uuid.uuid4()}"
    process = start("run", "--", "sh", "-c", "echo up; sleep 60; true", marker, stdout=-1, stderr=-3, stdin=-3)
    assert process.stdout.readline() == b"up\n"
    assert lives(marker)
    process.kill()
    process.communicate(timeout=SOON_S)
    assert wait_until(lambda: not lives(marker))


def test_secret_is_in_no_command_line_no_environment_and_no_words_of_ours(tmp_path):
    value = f"hunter2-{uuid.uuid4()}"
    source = tmp_path / "key"
    source.write_text(value)
    words = ("run", "--secret", f"key=file:{source}@file:/tmp/key", "--", "sh", "-c", "wc -c < /tmp/key; read line")
    process = start(*words, stdin=-1, stdout=-1, stderr=-1)
    assert process.stdout.readline().strip() == str(len(value)).encode()
    seen = []
    for entry in filter(str.isdigit, os.listdir("/proc")):
        for part in ("cmdline", "environ"):
            try:
                with open(f"/proc/{entry}/{part}", "rb") as file:
                    seen += [f"{entry}/{part}"] if value.encode() in file.read() else []
            except OSError:
                continue
    shown, said = process.communicate(timeout=DEADLINE_S)
    assert seen == []
    assert value.encode() not in shown + said
    assert process.returncode == 1  # read met the end of its input


def test_slow_reader_does_not_stop_the_deadline():
    process = start("run", "--timeout", "1", "--", "sh", "-c", "yes; sleep 60", stdout=-1, stderr=-1, stdin=-3)
    readable, _, _ = select.select([process.stdout], [], [], DEADLINE_S)
    assert readable
    time.sleep(1.5)
    _, said = process.communicate(timeout=DEADLINE_S)
    assert process.returncode == 124
    assert b"timed out after 1 s" in said


def test_json_holds_the_result_and_nothing_else_is_printed():
    done = kavach("run", "--json", "--", "sh", "-c", "echo out; echo err >&2; exit 3")
    result = json.loads(done.stdout)
    assert (done.returncode, done.stderr) == (3, b"")
    assert result["schema"] == "kavach.result/1"
    assert [result[name] for name in ("exit_code", "reason", "ok", "stdout", "stderr")] == [
        3,
        "exit",
        False,
        "out\n",
        "err\n",
    ]
    assert result["verdict"] == "pass"
    assert {"score", "requested_score", "enforcement", "usage", "duration_ms", "sandbox_id", "denials"} <= set(result)
    assert result["score"]["value"] <= result["requested_score"]["value"]


def test_why_names_what_was_refused():
    done = kavach("run", "--why", "--policy", "strict", "--", "cat", "/etc/shadow")
    assert done.returncode == 1
    assert b"kavach: denied: " in done.stderr
    assert b"/etc/shadow" in done.stderr
