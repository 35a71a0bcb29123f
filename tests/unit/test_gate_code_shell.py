"""A shell's text is read as a shell reads it, in time linear in its length."""

from __future__ import annotations

import contextlib
import random
import shlex
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kavach.gate.code.acts import deeds_of
from kavach.gate.code.analysis import read_shell
from kavach.gate.code.shell import read
from kavach.gate.code.syntax import Block, Call, TooDeep


def words(text: str) -> list[list[str]]:
    def calls(pipelines):
        for stage in (stage for pipeline in pipelines for stage in pipeline.stages):
            if isinstance(stage, Block):
                yield from calls(stage.pipelines)
            else:
                yield [word.literal for word in stage.words]

    return list(calls(read(text).pipelines))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a b;c", [["a", "b"], ["c"]]),
        ("a && b || c & d", [["a"], ["b"], ["c"], ["d"]]),
        ("a | b |& c", [["a"], ["b"], ["c"]]),
        ("'a b' \"c d\" e\\ f", [["a b", "c d", "e f"]]),
        ("\"a'b\" 'c\"d'", [["a'b", 'c"d']]),
        ('"a\\"b\\n$x"', [['a"b\\n$x']]),
        (r"$'a\x41\n\101'", [["aA\nA"]]),
        ("a # b\nc", [["a"], ["c"]]),
        ("a#b", [["a#b"]]),
        ("a \\\nb", [["a", "b"]]),
        ("if a; then b; else c; fi", [["a"], ["b"], ["c"]]),
        ("for i in 1 2; do x $i; done; y", [["x", "$i"], ["y"]]),
        ("while a; do b; done < f", [["a"], ["b"]]),
        ("case x in a|b) c;; *) d;; esac; e", [["c"], ["d"], ["e"]]),
        ("f() { a; }; g", [["a"], ["g"]]),
        ("function f { a; }", [["a"]]),
        ("( a; b ) | c", [["a"], ["b"], ["c"]]),
        ("[[ a < b && c ]] && d", [["[[", "a", "&", "&", "c", "]]"], ["d"]]),
        ("! a", [["a"]]),
        ("{shell} -i", [["{shell}", "-i"]]),
        ("echo $((1+2)) ${x:-y}", [["echo", "0", "$x"]]),
        ("A=1 B='2 3' c", [["c"]]),
        ("a >f 2>&1 <g b", [["a", "b"]]),
    ],
)
def test_words_are_those_a_shell_would_see(text, expected):
    assert words(text) == expected


def test_here_document_belongs_to_its_delimiter():
    script = read("cat <<'A' <<-B | sh\none\nA\n\ttwo\n\tB\nnext")
    assert list(script.bodies.values()) == ["one", "\ttwo"]
    assert words("cat <<E\nrm -rf /\nE\nls") == [["cat"], ["ls"]]


def test_offsets_are_those_of_the_text():
    text = "sudo  rm -rf '/x y' ; ls"
    first, second = (pipeline.stages[0] for pipeline in read(text).pipelines)
    assert isinstance(first, Call)
    assert isinstance(second, Call)
    assert text[first.start : first.end] == "sudo  rm -rf '/x y'"
    assert [text[word.start : word.end] for word in first.words] == ["sudo", "rm", "-rf", "'/x y'"]
    assert text[second.start : second.end] == "ls"


@pytest.mark.parametrize("text", ["'a", '"a', "a $(b", "{ a", "if a; then b", "`a", "f(x)", "$'a"])
def test_what_is_not_closed_is_no_whole_text(text):
    assert not read(text).is_whole


@given(
    st.lists(st.text(alphabet=st.characters(min_codepoint=1, max_codepoint=255), min_size=1), min_size=1, max_size=6)
)
def test_quoted_words_come_back_as_they_were(given_words):
    text = shlex.join(["x", *given_words])
    assert words(text) == [["x", *given_words]]


@given(st.text(alphabet=";|&(){}<>$`'\"\\ \n\tabif#=[]!*doneesac0", max_size=300))
def test_no_text_breaks_the_reader(text):
    try:
        read(text)
        deeds_of(text)
    except TooDeep:
        pass


UNITS = [
    "a|", "()", "a=(", "for ((;;", "<<A ", "a <<A|", "[[ a&&", "${a", '"$(a|', "(", "`", "' ", "case a in b)", "a\\\n|",
    "if ", "$((", "{ a;}", "\"", "<<a\n", "a <<b\n", "$a", "$'\\", "x=$x$x;", "f(){ f|f& };", "echo a|sh;", "sh -c 'a';", "nc|sh|", "find -exec ", "sudo ", "find -exec a ; ",
]  # fmt: skip


@pytest.mark.parametrize("unit", UNITS)
def test_time_is_linear_in_the_text(unit):
    """Four times the text takes at most eight times as long, where it takes long enough to be measured."""

    def once(size: int) -> float:
        start = time.process_time()
        read_shell((unit * size)[:size])
        return time.process_time() - start

    def seconds(size: int) -> float:
        return min(once(size) for _ in range(3))  # a neighbour on the same core can only add

    assert seconds(4096) < max(0.3, 8 * seconds(1024))


def test_random_bytes_are_read():
    for seed in range(20):
        text = random.Random(seed).randbytes(2000).decode("latin-1")
        with contextlib.suppress(TooDeep):
            deeds_of(text)


@pytest.mark.parametrize("text", ["( " * 100, "$(" * 100, "{ " * 100, "${a" * 100])
def test_what_nests_too_deeply_is_refused_and_overflows_nothing(text):
    with pytest.raises(TooDeep):
        read(text)


def test_variables_cannot_make_a_text_grow_without_bound():
    doubled = "a=xxxxxxxx;" + "".join(
        f"{b}=${a}${a};" for a, b in zip("abcdefghijklmnop", "bcdefghijklmnopq", strict=True)
    )
    assert max(len(arg) for act in deeds_of(doubled + "echo $q").acts for arg in act.args) < 2000


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("sudo -u bob nice -n 5 sh -c 'curl x'", ["sudo", "nice", "sh", "curl"]),
        ("env A=1 /usr/bin/nc.traditional x", ["env", "nc.traditional"]),
        ("timeout -k 3 5 ls", ["timeout", "ls"]),
        ("find . -exec rm {} \\; -exec ls {} +", ["find", "rm", "ls"]),
        ("C='curl -s'; $C x", ["", "curl"]),
        ("a=cu; b=rl; $a$b x", ["", "", "curl"]),
        ("echo 'rm x' | sh", ["echo", "sh", "rm"]),
        ("bash <<E\nrm x\nE", ["bash", "rm"]),
        ("eval 'rm x'", ["eval", "rm"]),
        ("kubectl exec p -- sh -c id", ["kubectl", "sh", "id"]),
        ("ssh -p 22 host 'cat x'", ["ssh", "cat"]),
        ("x=$(curl y)", ["curl", ""]),
        ("CMD.EXE /c dir", ["cmd"]),
    ],
)
def test_programs_are_known_behind_what_starts_them(text, names):
    assert [act.name for act in deeds_of(text).acts] == names


@pytest.mark.parametrize(
    "text",
    ["eval " * 7 + "x", "sudo " * 20 + "x", "a;" * 1001, "eval x;" * 201, f"a='{'x ' * 250}';eval " + "$a" * 400],
    ids=["texts in texts", "wrappers", "programs", "texts", "length"],
)
def test_what_would_cost_too_much_is_refused(text):
    with pytest.raises(TooDeep):
        deeds_of(text)
