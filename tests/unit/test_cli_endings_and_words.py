"""The command line's exit codes, sentences and option readers, without running anything."""

from __future__ import annotations

import argparse
import contextlib
import errno
import os
import pty
import re

import pytest

from kavach import SandboxPolicy
from kavach.cli import bench, doctor, ending, main, policy, streams
from kavach.cli.streams import StreamLost
from kavach.cli.words import Parser, seconds, variable, whole_number
from kavach.errors import BackendError, KavachError
from kavach.model.enforcement import Enforcement
from kavach.model.result import EndReason, ExecResult
from kavach.model.score import StrengthScore
from kavach.model.verdict import Verdict

POLICY = SandboxPolicy.strict()


def result(reason, **more):
    base = {
        "sandbox_id": "sb-1",
        "reason": reason,
        "score": StrengthScore(0),
        "requested_score": StrengthScore(0),
        "verdict": Verdict.NOT_SCANNED,
    }
    return ExecResult(**(base | more))


@pytest.mark.parametrize(
    ("reason", "more", "code"),
    [
        (EndReason.EXIT, {"exit_code": 0}, 0),
        (EndReason.EXIT, {"exit_code": 3}, 3),
        (EndReason.EXIT, {"exit_code": 127}, 127),
        (EndReason.SIGNAL, {"signal": 15}, 143),
        (EndReason.POLICY_KILL, {"signal": 9}, 137),
        (EndReason.POLICY_KILL, {}, 125),
        (EndReason.TIMEOUT, {"signal": 9}, 124),
        (EndReason.TIMEOUT_SIBLING, {"signal": 9}, 124),
        (EndReason.OOM, {"signal": 9}, 137),
        (EndReason.PIDS, {"exit_code": 1}, 137),
        (EndReason.DISK, {"exit_code": 1}, 137),
        (EndReason.OUTPUT_LIMIT, {"signal": 9}, 137),
        (EndReason.WITHHELD, {}, 120),
        (EndReason.BACKEND_LOST, {}, 125),
        (EndReason.NOT_RUN, {}, 0),
    ],
)
def test_every_ending_has_its_exit_code(reason, more, code):
    assert ending.exit_code(result(reason, **more)) == code


@pytest.mark.parametrize(
    ("reason", "more", "said"),
    [
        (EndReason.TIMEOUT, {}, ["timed out after 1.5 s; --timeout S gives it more"]),
        (EndReason.OOM, {}, [f"ended by a limit: oom (limits.memory_limit_mb = {POLICY.limits.memory_limit_mb})"]),
        (EndReason.DISK, {}, ["ended by a limit: disk (limits.disk_bytes or tmp_bytes"]),
        (EndReason.WITHHELD, {}, ["the output was withheld: not_scanned; destroyed"]),
        (EndReason.BACKEND_LOST, {}, ["the wall was lost while the command ran; nothing of the command lives on"]),
        (EndReason.NOT_RUN, {}, ["nothing was run: noop is no wall"]),
        (EndReason.SIGNAL, {"signal": 31}, ["ended by signal SIGSYS: a system call was refused; --why names it"]),
        (EndReason.POLICY_KILL, {"signal": 9}, ["ended by the policy"]),
        (EndReason.EXIT, {"exit_code": 3}, []),
        (EndReason.SIGNAL, {"signal": 9}, []),
        (
            EndReason.EXIT,
            {"exit_code": 0, "stdout_dropped_bytes": 7, "stderr_dropped_bytes": 1},
            [f"{name} was cut: {n} bytes dropped beyond" for name, n in (("stdout", 7), ("stderr", 1))],
        ),
    ],
)
def test_every_ending_says_what_its_code_does_not(reason, more, said):
    found = list(ending.words(result(reason, **more), POLICY, 1500))
    assert len(found) == len(said)
    assert all(line.startswith(start) for line, start in zip(found, said, strict=True))


def test_timeout_without_a_number_names_none():
    assert list(ending.words(result(EndReason.TIMEOUT), POLICY, None)) == ["timed out; --timeout S gives it more"]


# readers of options


@pytest.mark.parametrize(("text", "value"), [("none", None), ("1.5", 1.5), ("0.001", 0.001)])
def test_seconds_are_a_number_or_none(text, value):
    assert seconds(text) == value


@pytest.mark.parametrize("text", ["0", "-1", "nan", "inf", "soon", "", "1e12"])
def test_what_is_no_time_is_refused(text):
    with pytest.raises(argparse.ArgumentTypeError, match="more than 0 seconds"):
        seconds(text)


@pytest.mark.parametrize("text", ["101", "-1", "1.0", "", "x", "\u0661"])
def test_number_out_of_bounds_or_in_other_digits_is_refused(text):
    with pytest.raises(argparse.ArgumentTypeError, match="from 0 to 100"):
        whole_number(0, 100)(text)


@pytest.mark.parametrize("text", ["", "NAME", "=secret-value"])
def test_variable_without_name_or_value_is_refused_and_not_quoted(text):
    with pytest.raises(argparse.ArgumentTypeError) as caught:
        variable(text)
    assert "secret-value" not in str(caught.value)
    assert variable("A=b=c") == ("A", "b=c")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--json", "--"], "no command after --"),
        (["--json"], "no command; expected"),
        (["ls", "-l"], "expected -- before the command"),
        (["--nope"], "no option --nope"),
        (["--nope", "--", "ls"], "--nope"),
        (["--js", "--", "ls"], "--js"),
    ],
)
def test_command_line_without_its_dashes_is_wrong_usage(capfd, words, said):
    parser = Parser("kavach run", "x", command=True)
    parser.add_argument("--json", action="store_true")
    with pytest.raises(SystemExit) as caught:
        parser.split(words)
    assert caught.value.code == 2
    assert said in capfd.readouterr().err


def test_everything_after_the_dashes_is_the_command():
    parser = Parser("kavach run", "x", command=True)
    parser.add_argument("--json", action="store_true")
    options, command = parser.split(["--json", "--", "ls", "--json", "--", "-h"])
    assert (options.json, command) == (True, ["ls", "--json", "--", "-h"])


def test_help_shows_where_the_command_goes(capfd):
    with pytest.raises(SystemExit):
        Parser("kavach run", "about", command=True).split(["--help"])
    assert "-- CMD ARGS..." in capfd.readouterr().out
    assert Parser("kavach run", "about", command=True).format_usage().endswith("-- CMD ARGS...\n")


# the front door


def said_by(capfd, *words):
    code = main(list(words))
    found = capfd.readouterr()
    return code, found.out, found.err


@pytest.mark.parametrize(("words", "code"), [([], 2), (["--help"], 0), (["help"], 0)])
def test_help_lists_every_sub_command(capfd, words, code):
    found, out, _ = said_by(capfd, *words)
    assert found == code
    assert {"run", "doctor", "score", "policy"} <= set(re.findall(r"^  (\w+)", out, re.MULTILINE))


def test_unknown_sub_command_is_wrong_usage(capfd):
    code, out, err = said_by(capfd, "rum")
    assert (code, out) == (2, "")
    assert "'rum'" in err


@pytest.mark.parametrize(
    ("raised", "code", "said"),
    [
        (KeyboardInterrupt(), 130, ""),
        (SystemExit(3), 3, ""),
        (SystemExit("text"), 2, ""),
        (StreamLost(1, OSError(errno.EPIPE, "broken")), 141, ""),
        (StreamLost(1, OSError(errno.ENOSPC, "No space left")), 125, "standard output: No space left"),
        (BackendError("the wall fell", runtime="x"), 125, "the wall fell"),
    ],
)
def test_every_failure_of_a_sub_command_is_one_line_and_a_code(capfd, monkeypatch, raised, code, said):
    def fail(_):
        raise raised

    monkeypatch.setattr(policy, "main", fail)
    found, _, err = said_by(capfd, "policy")
    assert found == code
    assert said in err
    assert "Traceback" not in err


def test_bug_is_named_by_type_and_place_and_never_by_its_text(capfd, monkeypatch):
    def fail(_):
        raise RuntimeError("output: hunter2")

    monkeypatch.setattr(policy, "main", fail)
    code, _, err = said_by(capfd, "policy")
    assert code == 125
    assert re.search(r"RuntimeError at \S+:\d+", err)
    assert "hunter2" not in err


@pytest.mark.parametrize(("words", "code"), [(["policy"], 2), (["policy", "--help"], 0), (["policy", "shew"], 2)])
def test_policy_without_a_known_act_lists_them(capfd, words, code):
    found, out, err = said_by(capfd, *words)
    assert found == code
    assert "learn" in out + err


# streams


def test_writing_waits_for_a_reader_of_a_non_blocking_stream():
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    taken = []
    content = os.urandom(200_000)

    def read():
        while sum(map(len, taken)) < len(content):
            taken.append(os.read(reader, 65536))

    import threading

    thread = threading.Thread(target=read)
    thread.start()
    streams.write(writer, content)
    thread.join()
    assert b"".join(taken) == content
    os.close(reader)
    with pytest.raises(StreamLost) as caught:
        streams.write(writer, b"x")
    assert caught.value.is_reader_gone
    os.close(writer)


def test_saying_something_to_a_closed_stream_is_no_second_failure(monkeypatch):
    def lost(*_):
        raise StreamLost(2, OSError(errno.EPIPE, "gone"))

    monkeypatch.setattr(streams, "write", lost)
    streams.say("anything")


def test_error_is_said_with_its_file_and_hint(capfd):
    error = KavachError("no such key", hint="try another")
    error.source = "p.toml"
    streams.say_error(error)
    assert capfd.readouterr().err == "kavach: p.toml: no such key (try another)\n"


def test_table_is_tabs_for_a_program_and_cannot_be_broken_by_a_cell(capfd):
    streams.write_table(("a", "b"), [("x\ty", "1\n2\x1b[31m")])
    assert capfd.readouterr().out.splitlines()[0] == "a\tb"


def shown_on_a_terminal(act):
    """Return what a terminal as standard output is shown; put up and taken down within the test, as pytest needs."""
    master, slave = pty.openpty()
    kept = os.dup(1)
    os.dup2(slave, 1)
    os.close(slave)
    try:
        act()
    finally:
        os.dup2(kept, 1)
        os.close(kept)
    shown = b""
    with contextlib.suppress(OSError):  # EIO: everything was read and nobody writes any more
        while part := os.read(master, 65536):
            shown += part
    os.close(master)
    return shown.decode()


def test_table_on_a_terminal_is_aligned_coloured_and_cut(monkeypatch):
    monkeypatch.delenv("NO_COLOR", raising=False)
    rows = [("files", "enforced"), ("x" * 200, "failed"), ("net", "degraded")]
    lines = shown_on_a_terminal(lambda: streams.write_table(("control", "state"), rows)).splitlines()
    assert lines[0].startswith("\x1b[1mcontrol")
    assert [line[:5] for line in lines[1:]] == ["\x1b[32m", "\x1b[31m", "\x1b[33m"]
    assert lines[2].endswith("…\x1b[0m")


def test_table_without_colour_has_no_escape(monkeypatch):
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b" not in shown_on_a_terminal(lambda: streams.write_table(("control",), [("files",)]))


# doctor and bench, on what they were told


def test_doctor_says_what_stands_what_is_weaker_and_why_another_was_refused(capfd, monkeypatch):
    def run(_argv, *, policy, timeout_s):
        if policy == "strict":
            raise KavachError("no user namespaces here")
        return result(EndReason.EXIT, exit_code=0, enforcement=Enforcement.of("process", ()))

    monkeypatch.setattr("kavach.run", run)
    trials = doctor.Trials()
    seen = list(trials.observe())
    assert seen[0] == ("preset strict", "failed", "no user namespaces here")
    assert not trials.is_strict_whole
    summary = trials.summary()
    assert (summary["strict"]["stands"], summary["strict"]["reason"]) == (False, "no user namespaces here")
    assert summary["basic"]["stands"]


def test_doctor_where_no_preset_stands_says_why_the_weakest_does_not(monkeypatch):
    def run(_argv, *, policy, timeout_s):
        raise KavachError(f"{policy} does not stand")

    monkeypatch.setattr("kavach.run", run)
    with pytest.raises(KavachError, match="basic does not stand"):
        list(doctor.Trials().observe())


def test_bench_prints_ratios_and_says_where_bubblewrap_is_not_compared(capfd, monkeypatch):
    rows = [bench.Row("subprocess.run", 2.0, 1.0, None), bench.Row("warm exec", 3.0, 1.5, None)]
    monkeypatch.setattr(bench, "require_platform", lambda: None)
    monkeypatch.setattr(bench, "measure", lambda _: rows)
    monkeypatch.setattr(bench, "measure_starts", lambda _: [bench.Row("python -c pass", 9.0, None, None)])
    assert bench.main(["--runs", "3"]) == 0
    found = capfd.readouterr()
    assert "warm exec\t3.00\t1.50x\t-\n" in found.out
    assert "bubblewrap does not work here" in found.err
    rows.append(bench.Row("bubblewrap", 1.0, 0.5, 1.0))
    bench.main([])
    assert "bubblewrap does not work" not in capfd.readouterr().err


def test_peer_that_does_not_run_is_an_error_and_is_left_out():
    with pytest.raises(BackendError, match="could not be timed"):
        bench._peer(["/bin/false"], 1, 1)
    assert bench._try_peer(["/bin/false"]) is False
    whole, each = bench._peer(["/bin/true"], 2, 2)
    assert len(each) == 2
    assert whole >= max(each)
