"""Secrets: read at the moment of use, sealed on their way, and shown by nothing."""

from __future__ import annotations

import copy
import errno
import fcntl
import inspect
import json
import os
import pickle
import pprint
import traceback

import msgspec
import pytest

from kavach.credentials import (
    CredentialProxy,
    EnvVar,
    Fd,
    File,
    FromCommand,
    FromEnv,
    FromFile,
    FromKeyring,
    SecretRef,
    SecretValue,
    Stdin,
    deliver,
    delivery,
)
from kavach.errors import ConfigError, CredentialError, KavachError, UnsupportedError
from kavach.linux import memory

# Made of two halves, so that no traceback shows it as a line of this file.
VALUE = "hunter2-" + "cafe" * 4


def open_fds() -> set[str]:
    return set(os.listdir("/proc/self/fd"))


def read_all(fd: int) -> bytes:
    return os.pread(fd, 1 << 21, 0)


@pytest.fixture
def proxy() -> CredentialProxy:
    made = CredentialProxy(environ={"HOST_TOKEN": VALUE, "OTHER": "other-value"})
    made.register("api_key", VALUE)
    return made


def rendered(error: BaseException) -> str:
    """Everything that a crash reporter with variables of frames would send away."""
    shown = traceback.TracebackException.from_exception(error, capture_locals=True)
    shown.stack[:] = [frame for frame in shown.stack if "site-packages" not in frame.filename]
    own = [frame for frame in shown.stack if not frame.filename.endswith("test_credentials.py")]
    chain = [shown.__cause__, shown.__context__]
    parts = [repr(frame.locals) for frame in own] + ["".join(link.format()) for link in chain if link]
    return "".join(parts) + str(error) + repr(vars(error))


PRINTERS = [
    repr,
    str,
    format,
    pprint.pformat,
    lambda thing: f"{thing!s}{thing!r}{thing}",
    lambda thing: f"{thing}",
    lambda thing: repr([thing]) + repr({"k": thing}),
    lambda thing: repr(inspect.getmembers(thing)),
    lambda thing: repr(dir(thing)) + repr(thing.__doc__),
]


@pytest.mark.parametrize("printer", PRINTERS)
def test_no_way_of_printing_shows_a_value(printer, proxy):
    with deliver([SecretRef("api_key", Stdin())], proxy) as injection:
        for thing in (
            SecretValue(VALUE),
            proxy,
            injection,
            proxy.resolve("api_key"),
            injection.deliveries[0],
        ):
            text = printer(thing)
            assert VALUE not in text
            assert "other-value" not in text


@pytest.mark.parametrize(
    "copier",
    [
        pickle.dumps,
        lambda thing: pickle.dumps(thing, protocol=0),
        copy.copy,
        copy.deepcopy,
        lambda thing: copy.deepcopy([thing]),
        lambda thing: thing.__reduce__() if False else thing.__reduce_ex__(2),
    ],
)
def test_no_way_of_copying_works(copier, proxy):
    for thing in (SecretValue(VALUE), proxy):
        with pytest.raises(CredentialError, match="copied nor pickled"):
            copier(thing)


def test_there_is_no_dict_and_no_encoder(proxy):
    for thing in (SecretValue(VALUE), proxy):
        with pytest.raises(TypeError):
            vars(thing)
        with pytest.raises(TypeError):
            json.dumps(thing)
        with pytest.raises(TypeError):
            msgspec.json.encode(thing)
        with pytest.raises(CredentialError):
            thing.__getstate__()


def test_reference_prints_and_encodes_without_a_value():
    ref = SecretRef("api_key", EnvVar("TOKEN"), FromEnv("HOST_TOKEN"))
    assert msgspec.json.decode(msgspec.json.encode(ref), type=SecretRef) == ref
    assert "api_key" in repr(ref)


def test_env_value_arrives_in_a_sealed_memfd(proxy):
    with deliver([SecretRef("api_key", EnvVar("TOKEN"))], proxy) as injection:
        (row,) = injection.deliveries
        assert (row.name, row.kind, row.target, row.mode) == ("api_key", "env", "TOKEN", 0)
        assert os.read(row.fd, 100) == VALUE.encode()
        assert VALUE not in os.readlink(f"/proc/self/fd/{row.fd}")
        for act in (
            lambda: os.pwrite(row.fd, b"x", 0),
            lambda: os.ftruncate(row.fd, 0),
            lambda: os.ftruncate(row.fd, 4096),
            lambda: fcntl.fcntl(row.fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE),
        ):
            with pytest.raises(OSError) as caught:
                act()
            assert caught.value.errno == errno.EPERM
        assert not os.get_inheritable(row.fd)


def test_each_target_is_its_own_delivery(proxy):
    refs = [
        SecretRef("api_key", File("/run/secrets/key", 0o440)),
        SecretRef("api_key", Stdin()),
        SecretRef("api_key", Fd(7)),
        SecretRef("host", EnvVar("T"), FromEnv("HOST_TOKEN")),
    ]
    with deliver(refs, proxy) as injection:
        assert [(row.kind, row.target, row.mode) for row in injection.deliveries] == [
            ("file", "/run/secrets/key", 0o440),
            ("stdin", 0, 0),
            ("fd", 7, 0),
            ("env", "T", 0),
        ]
        assert len({row.fd for row in injection.deliveries}) == 4
        assert [(name, value.reveal()) for name, value in injection.values] == [
            ("api_key", VALUE.encode()),
            ("host", VALUE.encode()),
        ]


def test_closing_leaves_no_descriptor_and_no_value(proxy):
    before = open_fds()
    with deliver([SecretRef("api_key", Stdin()), SecretRef("api_key", Fd(5))], proxy) as injection:
        ((_, value),) = injection.values
        assert open_fds() > before
    assert open_fds() == before
    assert value.size_bytes == 0
    assert injection.deliveries == injection.values == ()
    injection.close()
    assert proxy.resolve("api_key").reveal() == VALUE.encode()


def test_failure_of_the_second_reference_leaves_nothing_of_the_first(proxy):
    before = open_fds()
    kept: list[SecretValue] = []
    read = proxy.resolve
    refs = [SecretRef("api_key", Stdin()), SecretRef("absent", Fd(5))]

    class Spy(CredentialProxy):
        def resolve(self, name: str) -> SecretValue:
            kept.append(read(name))
            return kept[-1]

    with pytest.raises(CredentialError, match="absent"):
        deliver(refs, Spy())
    assert open_fds() == before
    assert [value.size_bytes for value in kept] == [0]


def test_source_is_asked_once_a_run_and_anew_in_the_next(proxy):
    answers = iter(["first", "second"])
    proxy.register("otp", lambda: next(answers))
    refs = [SecretRef("otp", EnvVar("A")), SecretRef("otp", Fd(3))]
    for expected in (b"first", b"second"):
        with deliver(refs, proxy) as injection:
            assert [read_all(row.fd) for row in injection.deliveries] == [expected, expected]


def test_unknown_name_names_the_known_ones(proxy):
    proxy.register("db", b"x")
    with pytest.raises(CredentialError, match=r"'nope'; known: api_key, db") as caught:
        deliver([SecretRef("nope", Stdin())], proxy)
    assert caught.value.hint
    with pytest.raises(CredentialError, match="none is registered"):
        CredentialProxy().resolve("nope")


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (EnvVar("A"), EnvVar("A")),
        (Stdin(), Stdin()),
        (Fd(4), Fd(4)),
        (File("/a/b"), File("/a/b", 0o600)),
        (File("/a"), File("/a/b")),
        (File("/a/b/c"), File("/a/b")),
    ],
)
def test_two_secrets_for_one_target_are_refused(one, other, proxy):
    proxy.register("second", "x")
    with pytest.raises(CredentialError, match="'api_key' and 'second' both want"):
        deliver([SecretRef("api_key", one), SecretRef("second", other)], proxy)


def test_neighbouring_targets_are_not_taken_for_one(proxy):
    refs = [SecretRef("api_key", target) for target in (File("/a/b"), File("/a/bc"), EnvVar("A"), EnvVar("AB"))]
    with deliver(refs, proxy) as injection:
        assert len(injection.deliveries) == 4


@pytest.mark.parametrize(
    ("ref", "path"),
    [
        (SecretRef("api key", Stdin()), "$.secrets[0].name"),
        (SecretRef("k\n", Stdin()), "$.secrets[0].name"),
        (SecretRef("k", EnvVar("A=B")), "$.secrets[0].inject_via.var_name"),
        (SecretRef("k", EnvVar("A\n")), "$.secrets[0].inject_via.var_name"),
        (SecretRef("k", File("relative")), "$.secrets[0].inject_via.path"),
        (SecretRef("k", File("/a/../etc/passwd")), "$.secrets[0].inject_via.path"),
        (SecretRef("k", File("/a/.")), "$.secrets[0].inject_via.path"),
        (SecretRef("k", File("/")), "$.secrets[0].inject_via.path"),
        (SecretRef("k", File("/a\0b")), "$.secrets[0].inject_via.path"),
        (SecretRef("k", File("/a", 0o4755)), "$.secrets[0].inject_via.mode"),
        (SecretRef("k", Fd(2)), "$.secrets[0].inject_via.number"),
        (SecretRef("k", Fd(True)), "$.secrets[0].inject_via.number"),
        (SecretRef("k", Stdin(), FromCommand(())), "$.secrets[0].source.argv"),
        (SecretRef("k", Stdin(), FromFile("a\0")), "$.secrets[0].source.path"),
        (SecretRef("k", Stdin(), FromEnv("")), "$.secrets[0].source.variable"),
        (SecretRef("k", "stdin"), "$.secrets[0].inject_via"),
        ("api_key", "$.secrets[0]"),
    ],
)
def test_misshapen_reference_is_named_by_its_path(ref, path, proxy):
    with pytest.raises(ConfigError) as caught:
        deliver([ref], proxy)
    assert caught.value.key == path
    assert path in str(caught.value)


def test_environment_is_read_only_where_it_was_given_and_at_the_moment_of_use(monkeypatch):
    monkeypatch.setenv("HOST_TOKEN", "from-the-process")
    ref = SecretRef("t", Stdin(), FromEnv("HOST_TOKEN"))
    with pytest.raises(CredentialError, match="no environment was given") as caught:
        deliver([ref], CredentialProxy())
    assert "environ=os.environ" in (caught.value.hint or "")

    class Watched(dict):
        asked: list[str] = []  # noqa: RUF012

        def get(self, key, default=None):
            self.asked.append(key)
            return super().get(key, default)

    environ = Watched(OTHER="x")
    proxy = CredentialProxy(environ=environ)
    proxy.register("t", FromEnv("HOST_TOKEN"))
    assert environ.asked == []
    with pytest.raises(CredentialError, match="HOST_TOKEN is not set"):
        proxy.resolve("t")
    environ["HOST_TOKEN"] = "late"
    assert proxy.resolve("t").reveal() == b"late"
    assert set(environ.asked) == {"HOST_TOKEN"}


def test_file_is_exact_unless_its_line_end_is_to_go(tmp_path):
    path = tmp_path / "key"
    for content, stripped in ((b"k\n", b"k"), (b"k\r\n", b"k"), (b"k\n\n", b"k\n"), (b"k", b"k")):
        path.write_bytes(content)
        proxy = CredentialProxy()
        assert proxy.read("k", FromFile(str(path))).reveal() == content
        assert proxy.read("k", FromFile(str(path), strip_newline=True)).reveal() == stripped


def test_file_that_is_none_is_refused_without_waiting(tmp_path):
    os.mkfifo(tmp_path / "fifo")
    for name, words in (
        ("absent", "No such file"),
        ("fifo", "not a regular file"),
        ("", "not a regular file"),
    ):
        with pytest.raises(CredentialError, match=words):
            CredentialProxy().read("k", FromFile(str(tmp_path / name)))


def test_empty_and_endless_values_are_refused(tmp_path, proxy):
    big = tmp_path / "big"
    big.write_bytes(b"x" * ((1 << 20) + 1))
    with pytest.raises(CredentialError, match="larger than 1048576"):
        proxy.read("k", FromFile(str(big)))
    with pytest.raises(CredentialError, match="larger than 1048576"):
        proxy.register("big", "x" * ((1 << 20) + 1))
    big.write_bytes(b"\n")
    with pytest.raises(CredentialError, match="'k' is empty"):
        proxy.read("k", FromFile(str(big), strip_newline=True))
    with pytest.raises(CredentialError, match="empty"):
        proxy.register("none", "")
    big.write_bytes(b"x" * (1 << 20))
    assert proxy.read("k", FromFile(str(big))).size_bytes == 1 << 20


def test_value_that_does_not_fit_a_variable_is_refused_there_and_nowhere_else(proxy):
    proxy.register("nul", b"a\0b")
    with pytest.raises(CredentialError, match="NUL"):
        deliver([SecretRef("nul", EnvVar("A"))], proxy)
    with deliver([SecretRef("nul", Stdin())], proxy) as injection:
        assert read_all(injection.deliveries[0].fd) == b"a\0b"
    longest = 131_072 - len("A=") - 1
    proxy.register("fits", "x" * longest)
    proxy.register("long", "x" * (longest + 1))
    deliver([SecretRef("fits", EnvVar("A"))], proxy).close()
    with pytest.raises(CredentialError, match="too many for a variable"):
        deliver([SecretRef("long", EnvVar("A"))], proxy)


def test_longest_value_of_a_variable_is_what_the_kernel_takes():
    longest = 131_072 - len("A=") - 1
    argv = ["/bin/sh", "-c", "echo ${#A}"]
    assert (
        os.waitstatus_to_exitcode(os.waitpid(os.posix_spawn(argv[0], [*argv[:2], "true"], {"A": "x" * longest}), 0)[1])
        == 0
    )
    with pytest.raises(OSError) as caught:
        os.posix_spawn(argv[0], argv, {"A": "x" * (longest + 1)})
    assert caught.value.errno == errno.E2BIG


def test_callback_that_raises_loses_its_words():
    def ask() -> str:
        raise RuntimeError(f"bad password {VALUE}")

    proxy = CredentialProxy()
    proxy.register("k", ask)
    with pytest.raises(CredentialError, match="'k': its callback raised RuntimeError") as caught:
        proxy.resolve("k")
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None
    assert VALUE not in rendered(caught.value)


@pytest.mark.parametrize("answer", [None, 7, "\ud800" + VALUE])
def test_callback_that_answers_something_else_is_refused(answer):
    proxy = CredentialProxy()
    proxy.register("k", lambda: answer)
    with pytest.raises(CredentialError, match="'k': its callback") as caught:
        proxy.resolve("k")
    assert VALUE not in rendered(caught.value)


@pytest.mark.parametrize(
    "act",
    [
        lambda proxy: proxy.register("bad name", VALUE),
        lambda proxy: proxy.register("api_key", VALUE),
        lambda proxy: proxy.register("k", VALUE + "x" * (1 << 20)),
        lambda proxy: proxy.register("k", "\ud800" + VALUE),
        lambda proxy: proxy.register("k", [VALUE]),
        lambda proxy: proxy.register(VALUE + " ", "k"),
        lambda proxy: SecretValue("\ud800" + VALUE),
        lambda proxy: proxy.resolve("nope"),
        lambda proxy: deliver([SecretRef("api_key", Stdin()), SecretRef("nope", Fd(3))], proxy),
        lambda proxy: deliver([SecretRef("h", Stdin(), FromEnv("NOT_SET"))], proxy),
        copy.copy,
    ],
)
def test_no_traceback_with_variables_shows_a_value(act, proxy):
    with pytest.raises(KavachError) as caught:
        act(proxy)
    assert VALUE not in rendered(caught.value)
    assert "other-value" not in rendered(caught.value)


def test_traceback_check_can_fail():
    def leak(value):
        raise CredentialError("x")

    namespace: dict = {}
    exec(compile("def leak(value):\n raise ValueError", "elsewhere.py", "exec"), namespace)
    with pytest.raises(ValueError) as caught:
        namespace["leak"](VALUE)
    assert VALUE in rendered(caught.value)


def command(script: str, **options) -> FromCommand:
    return FromCommand(("/bin/sh", "-c", script), **options)


def test_command_gives_its_stdout_without_the_last_line_end():
    proxy = CredentialProxy()
    assert proxy.read("k", command("echo a; echo b; echo noise >&2")).reveal() == b"a\nb"
    assert proxy.read("k", command("echo a", strip_newline=False)).reveal() == b"a\n"


def test_command_sees_the_given_environment_or_a_clean_one(monkeypatch):
    monkeypatch.setenv("HOST_TOKEN", "from-the-process")
    ask = command('printf %s "${HOST_TOKEN-unset}"')
    assert CredentialProxy().read("k", ask).reveal() == b"unset"
    assert CredentialProxy(environ={"HOST_TOKEN": "given"}).read("k", ask).reveal() == b"given"


@pytest.mark.parametrize(
    ("source", "words"),
    [
        (command(f"echo {VALUE}; exit 3"), "exit code 3"),
        (command(f"echo {VALUE}; kill -9 $$"), "exit code -9"),
        (command(f"echo {VALUE}; exec sleep 60", timeout_s=0.3), "did not end within 0.3 s"),
        (command("true"), "is empty"),
        (command("head -c 2000000 /dev/zero"), "larger than 1048576"),
        (FromCommand(("/nonexistent/program", "x")), "could not be started"),
    ],
)
def test_failing_command_is_named_and_its_output_is_not(source, words, proxy):
    with pytest.raises(CredentialError, match=words) as caught:
        proxy.read("k", source)
    shown = rendered(caught.value)
    assert "'k'" in str(caught.value)
    assert "other-value" not in shown
    assert VALUE not in shown.replace(repr(source), "")


def test_missing_keyring_package_names_its_install(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "keyring", None)
    with pytest.raises(CredentialError, match="keyring is not installed") as caught:
        CredentialProxy().read("k", FromKeyring("svc", "me"))
    assert caught.value.hint == "pip install keyring"


def test_keyring_is_asked_for_service_and_user(monkeypatch):
    class Keyring:
        @staticmethod
        def get_password(service, user):
            return f"{service}+{user}" if service == "svc" else None

    monkeypatch.setitem(__import__("sys").modules, "keyring", Keyring)
    assert CredentialProxy().read("k", FromKeyring("svc", "me")).reveal() == b"svc+me"
    with pytest.raises(CredentialError, match="gave nothing"):
        CredentialProxy().read("k", FromKeyring("other", "me"))


def test_misshapen_source_is_refused_when_it_is_registered(proxy):
    with pytest.raises(ConfigError, match=r"\$\.variable: expected a variable's name") as caught:
        proxy.register("k", FromEnv(VALUE))
    assert VALUE not in str(caught.value)
    assert proxy.names == ("api_key",)


def test_forgotten_name_is_unknown_and_may_be_registered_again(proxy):
    with pytest.raises(CredentialError, match="already"):
        proxy.register("api_key", "new")
    proxy.forget("api_key")
    assert proxy.names == ()
    with pytest.raises(CredentialError, match="no secret"):
        proxy.forget("api_key")
    proxy.register("api_key", "new")
    assert proxy.resolve("api_key").reveal() == b"new"


def test_platform_without_memfd_is_named(monkeypatch, proxy):
    monkeypatch.delattr(delivery.os, "memfd_create")
    with pytest.raises(UnsupportedError) as caught:
        deliver([SecretRef("api_key", Stdin())], proxy)
    assert caught.value.control == "secrets"


@pytest.mark.parametrize(("code", "works"), [(errno.EINVAL, True), (errno.EMFILE, False)])
def test_kernel_without_noexec_seal_is_served_and_another_refusal_is_reported(monkeypatch, proxy, code, works):
    real, flags_seen = os.memfd_create, []

    def memfd_create(name, flags):
        flags_seen.append(flags)
        if len(flags_seen) == 1:
            raise OSError(code, os.strerror(code))
        return real(name, flags)

    monkeypatch.setattr(delivery.os, "memfd_create", memfd_create)
    if works:
        deliver([SecretRef("api_key", Stdin())], proxy).close()
        assert flags_seen[0] == flags_seen[1] | 0x8
    else:
        with pytest.raises(CredentialError, match="Too many open files"):
            deliver([SecretRef("api_key", Stdin())], proxy)


def test_descriptor_that_cannot_be_sealed_is_closed(monkeypatch, proxy):
    def fail(fd):
        raise OSError(errno.EBUSY, "busy")

    monkeypatch.setattr(memory, "seal", fail)
    before = open_fds()
    with pytest.raises(CredentialError, match="no sealed memory for a secret: busy"):
        deliver([SecretRef("api_key", Stdin())], proxy)
    assert open_fds() == before


def test_format_with_a_width_shows_no_value():
    assert f"{SecretValue(VALUE):>40}" == "SecretValue(***)"


def test_wiped_value_is_overwritten_and_gone():
    value = SecretValue(VALUE)
    memory = value._held()
    value.wipe()
    assert memory == b""
    assert value.reveal() == b""


def test_surrogate_escapes_of_an_environment_come_back_as_the_bytes():
    assert SecretValue(b"\xff\xfe".decode("utf-8", "surrogateescape")).reveal() == b"\xff\xfe"
