"""Commands: what the kernel gets for what a caller wrote, and what is refused before anything sees it."""

from __future__ import annotations

from pathlib import Path

import pytest

from kavach.errors import ConfigError
from kavach.model.command import environment, make_command, milliseconds, split_words


def test_a_list_is_kept_word_for_word():
    assert make_command(["echo", "a b", "$HOME", "*", ""]).argv == (b"echo", b"a b", b"$HOME", b"*", b"")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("echo hello world", ("echo", "hello", "world")),
        ("echo 'a b' \"c d\" e\\ f", ("echo", "a b", "c d", "e f")),
        ("echo $HOME; rm -rf / | cat > x", ("echo", "$HOME;", "rm", "-rf", "/", "|", "cat", ">", "x")),
        ("echo a#b # c", ("echo", "a#b", "#", "c")),
        ("echo ''", ("echo", "")),
    ],
)
def test_a_text_is_split_as_a_shell_splits_words_and_never_run_by_one(text, words):
    assert split_words(text) == words
    assert make_command(text).argv == tuple(word.encode() for word in words)


@pytest.mark.parametrize("text", ["echo 'open", 'echo "open', "echo \\"])
def test_a_text_with_an_open_quote_is_refused_without_being_quoted(text):
    with pytest.raises(ConfigError) as caught:
        make_command(text)
    assert "open" not in str(caught.value)


def test_paths_and_bytes_are_words_too():
    assert make_command([Path("/bin/ls"), b"\xff\xfe"]).argv == (b"/bin/ls", b"\xff\xfe")
    assert make_command(["ls", "\udcff"]).argv == (b"ls", b"\xff")


@pytest.mark.parametrize(
    "argv",
    [
        [],
        "",
        "   ",
        [""],
        None,
        5,
        b"ls",
        {"ls": 1},
        ["ls", 5],
        ["ls", None],
        [["ls"]],
        ["ls", "a\0b"],
        ["\ud800"],
    ],
)
def test_what_is_no_command_is_refused(argv):
    with pytest.raises(ConfigError) as caught:
        make_command(argv)
    assert caught.value.key.startswith("argv")


def test_an_argument_longer_than_the_kernel_takes_is_refused_without_being_quoted():
    assert len(make_command(["x", "a" * 131071]).argv[1]) == 131071
    with pytest.raises(ConfigError, match="131071") as caught:
        make_command(["x", "secret" * 30000])
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("cwd", ["workspace", "/a/../b", "/a\0", "", "/a/", 5, b"/a"])
def test_a_folder_must_be_absolute_and_normalised(cwd):
    with pytest.raises(ConfigError) as caught:
        make_command(["ls"], cwd=cwd)
    assert caught.value.key == "cwd"


@pytest.mark.parametrize(
    "env",
    [
        {"": "x"},
        {"A=B": "x"},
        {"A\0": "x"},
        {"A": "x\0y"},
        {"A": 5},
        {"A\ud800": "x"},
        {5: "x"},
        {"A": None},
        [("A", "x")],
        "A=x",
    ],
)
def test_an_environment_that_could_be_misread_is_refused(env):
    with pytest.raises(ConfigError):
        environment(env)


def test_a_value_is_never_in_a_message():
    with pytest.raises(ConfigError) as caught:
        environment({"TOKEN": "hunter2\0"})
    assert "hunter2" not in str(caught.value)
    assert "TOKEN" in str(caught.value)


def test_an_environment_is_copied():
    given = {"A": "1"}
    command = make_command(["x"], env=given)
    given["A"] = "2"
    assert command.env == {"A": "1"}
    assert environment(None) == {}


@pytest.mark.parametrize(
    ("given", "data"),
    [(None, None), (b"\0\xff", b"\0\xff"), ("ä", b"\xc3\xa4"), ("", b""), (bytearray(b"a"), b"a")],
)
def test_standard_input_is_bytes_exactly(given, data):
    assert make_command(["x"], stdin=given).stdin == data


@pytest.mark.parametrize("given", [5, ["a"], "\ud800"])
def test_standard_input_that_is_neither_bytes_nor_text_is_refused(given):
    with pytest.raises(ConfigError) as caught:
        make_command(["x"], stdin=given)
    assert caught.value.key == "stdin"


@pytest.mark.parametrize(
    ("seconds", "ms"), [(None, None), (1, 1000), (0.0004, 1), (2.5, 2500), (0.016, 16), (86400, 86_400_000)]
)
def test_seconds_become_milliseconds_and_none_means_no_limit(seconds, ms):
    assert milliseconds(seconds) == ms


@pytest.mark.parametrize("seconds", [0, -1, float("nan"), float("inf"), True, "5", 1e12])
def test_a_time_limit_that_is_none_is_refused(seconds):
    with pytest.raises(ConfigError) as caught:
        milliseconds(seconds)
    assert caught.value.key == "timeout_s"


def test_repr_shows_the_program_and_no_argument_or_value():
    text = repr(make_command(["curl", "-H", "token: hunter2"], env={"KEY": "hunter2"}, stdin="hunter2"))
    assert "curl" in text
    assert "hunter2" not in text
