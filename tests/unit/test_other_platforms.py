"""Where commands cannot run, everything else does, and every way to run one says the same thing.

An interpreter of its own is made to look like another platform before `import kavach`: what the standard library does
not have there is taken away, the standard library's own parts having been loaded first.
"""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys

import pytest

from kavach import UnsupportedError
from kavach.backends import require_platform

DISGUISE = """
import asyncio, ctypes, json, os, platform, select, selectors, shutil, signal, socket, subprocess, sys, tempfile, threading
loop = asyncio.new_event_loop()
name, folder = sys.argv[1:3]

#: What the documentation of each module marks as not available there.
WINDOWS = {
    os: '''register_at_fork fork forkpty geteuid getuid getegid getgid uname pidfd_open memfd_create setns unshare waitid
        set_blocking mkfifo mknod O_CLOEXEC O_DIRECTORY O_NOFOLLOW O_PATH O_NONBLOCK killpg setsid getpgid getsid
        posix_spawn pread pwrite sysconf statvfs chroot chown lchown fchown WNOHANG WIFEXITED getgroups openpty pipe2
        sched_setaffinity sched_getaffinity nice getpriority''',
    signal: '''SIGKILL SIGSTOP SIGCONT SIGHUP SIGUSR1 SIGUSR2 SIGALRM SIGCHLD SIGPIPE SIGQUIT SIGSYS pthread_sigmask
        sigwait pidfd_send_signal''',
    select: 'poll epoll',
    socket: 'AF_NETLINK AF_VSOCK AF_PACKET AF_ALG SCM_RIGHTS SCM_CREDENTIALS SO_PASSCRED SO_PEERCRED SOCK_SEQPACKET',
}
MACOS = {
    os: '''pidfd_open memfd_create setns unshare O_PATH pipe2 sched_setaffinity sched_getaffinity waitid
        MFD_CLOEXEC MFD_ALLOW_SEALING''',
    signal: 'SIGSYS pidfd_send_signal sigtimedwait sigwaitinfo',
    select: 'epoll',
    socket: 'AF_NETLINK AF_VSOCK AF_PACKET AF_ALG SCM_CREDENTIALS SO_PASSCRED SO_PEERCRED SOCK_SEQPACKET',
}
MODULES = {
    'win32': 'fcntl resource pwd grp termios tty pty syslog posix _posixsubprocess crypt spwd',
    'darwin': 'spwd',
}


def take_away(names):
    for module, words in names.items():
        for word in words.split():
            if hasattr(module, word):
                delattr(module, word)


def refuse(*given, **named):
    raise TypeError('there is no C library of Linux here')


if name == 'riscv64':
    real = os.uname()
    os.uname = lambda: os.uname_result((real.sysname, real.nodename, real.release, real.version, name))
else:
    platform.uname()  # remembered by its module, which would else look for programs of that platform
    take_away(WINDOWS if name == 'win32' else MACOS)
    for word in MODULES[name].split():
        sys.modules[word] = None  # an import of it raises ModuleNotFoundError
    ctypes.CDLL = refuse
    sys.platform = name

import kavach
"""
ACTS = """
public = [word for word in kavach.__all__ if getattr(kavach, word) is not None]
import kavach.learning
from kavach import AsyncSandbox, AsyncSandboxPool, Backend, Sandbox, SandboxConfig, SandboxPolicy, SandboxPool, cli, scoring
from kavach.doctor import examine
from kavach.policy.narrow import narrow
from kavach.policy.profiles import dump_profile
from kavach.policy.seccomp_profile import load_profile

said = {}


def attempt(word, act):
    try:
        said[word] = str(act())
    except kavach.KavachError as error:
        said[word] = {'type': type(error).__name__, 'control': getattr(error, 'control', None),
                      'found': getattr(error, 'found', None), 'message': str(error)}
    except BaseException as error:
        said[word] = {'type': type(error).__name__, 'message': str(error), 'control': None}


def wait(act):
    return loop.run_until_complete(act)


async def run_async_pool():
    async with AsyncSandboxPool(warm=1) as pool:
        await pool.claim()


def from_file():
    path = os.path.join(folder, name + '.toml')
    with open(path, 'w') as file:
        file.write('extends = "strict"\\n[limits]\\nmax_pids = 7\\n')
    return SandboxPolicy.from_file(path).limits.max_pids


def command_line(*words):
    sys.stdout.flush()
    kept, again = os.dup(1), os.dup(2)
    path = os.path.join(folder, name + '.txt')
    with open(path, 'wb') as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
        code = cli.main(list(words))
        os.dup2(kept, 1)
        os.dup2(again, 2)
    os.close(kept)
    os.close(again)
    with open(path, encoding='utf-8') as file:
        said['kavach ' + ' '.join(words)] = [code, file.read()]


plain = SandboxConfig.builder().backend(Backend.PROCESS).policy_seccomp('strict').network(False).build
attempt('config', lambda: plain().backend)
attempt('narrow', lambda: narrow(SandboxPolicy.strict(), SandboxPolicy.basic(memory_limit_mb=64)).limits.memory_limit_mb)
attempt('score', lambda: int(scoring.score_backend('process', SandboxPolicy.strict())))
attempt('profile', from_file)
attempt('text', lambda: dump_profile(SandboxPolicy.strict()).splitlines()[0])
attempt('filter', lambda: load_profile('strict') is not None)
attempt('noop', lambda: kavach.run(['true'], backend='noop').reason)
attempt('available', Backend.available)
attempt('doctor', lambda: [(row.control, row.available, row.cause) for row in examine().rows])

attempt('run', lambda: kavach.run(['true']))
attempt('strict', lambda: kavach.run(['true'], policy='strict'))
attempt('Sandbox', lambda: Sandbox.create(plain()))
attempt('with', lambda: Sandbox(policy='basic').__enter__())
attempt('pool', lambda: SandboxPool(warm=1).claim())
attempt('arun', lambda: wait(kavach.arun(['true'])))
attempt('async pool', lambda: wait(run_async_pool()))
attempt('async sandbox', lambda: wait(AsyncSandbox().exec(['true'])))
attempt('learn', lambda: kavach.learning.learn(['true']))
attempt('auto', lambda: kavach.run(['true'], backend='auto'))

for words in ('--version', 'policy show strict', 'policy diff basic strict', 'policy schema', 'backends', 'doctor',
              'run -- true', 'run --policy strict --json -- true', 'run --secret A=env:HOME@env:A -- true', 'score',
              'policy learn -- true', 'bench', 'run --backend auto -- true', 'run --backend noop -- true'):
    command_line(*words.split())

kernel = [one for one in sys.modules if one.startswith(('kavach.launcher.', 'kavach.linux.'))]
print(json.dumps({'public': public, 'said': said, 'kernel': kernel}))
"""
FOUND = {"win32": "win32", "darwin": "darwin", "riscv64": "linux on riscv64 in 64 bits"}
#: Of the modules below linux and launcher, those that touch no kernel.
TABLES = {
    "kavach.launcher.pump",
    "kavach.linux.bpf",
    "kavach.linux.syscalls",
    "kavach.linux.syscalls_x86_64",
    "kavach.linux.syscalls_aarch64",
    "kavach.linux.syscall_prototypes",
    "kavach.linux.landlock_abi",
    "kavach.linux.seccomp_filter",
}


@pytest.fixture(scope="module")
def other(tmp_path_factory):
    folder = str(tmp_path_factory.mktemp("other"))

    @functools.cache
    def pretend(name):
        argv = [sys.executable, "-B", "-c", DISGUISE + ACTS, name, folder]
        env = os.environ | {"XDG_STATE_HOME": folder}
        done = subprocess.run(argv, capture_output=True, text=True, timeout=60, cwd="/", env=env)
        assert done.returncode == 0, done.stdout + done.stderr
        return json.loads(done.stdout.splitlines()[-1])

    return pretend


@pytest.mark.parametrize("name", FOUND)
def test_what_runs_nothing_works_on_every_platform(other, name):
    found = other(name)
    said = found["said"]
    assert {word: said[word] for word in ("config", "narrow", "score", "profile", "text", "filter", "noop")} == {
        "config": "process",
        "narrow": "64",
        "score": "69",
        "profile": "7",
        "text": 'extends = "strict"',
        "filter": "True",
        "noop": "not_run",
    }
    for words in ("--version", "policy show strict", "policy diff basic strict", "policy schema"):
        code, text = said[f"kavach {words}"]
        assert code == 0, (words, text)


@pytest.mark.parametrize("name", FOUND)
def test_every_public_name_can_be_had_on_every_platform(other, name):
    import kavach

    assert other(name)["public"] == list(kavach.__all__)


@pytest.mark.parametrize("name", FOUND)
@pytest.mark.parametrize(
    "word", ["run", "strict", "Sandbox", "with", "pool", "arun", "async pool", "async sandbox", "learn"]
)
def test_every_way_to_run_refuses_and_names_the_platform(other, name, word):
    said = other(name)["said"][word]
    assert (said["type"], said["control"], said["found"]) == ("UnsupportedError", "platform", FOUND[name]), said
    assert f"this is {FOUND[name]}; nothing was run" in said["message"]


@pytest.mark.parametrize("name", FOUND)
def test_no_wall_is_available_there_and_each_reason_names_the_platform(other, name):
    said = other(name)["said"]
    assert said["available"] == "()"
    assert said["auto"]["type"] == "BackendUnavailable"
    assert FOUND[name] in said["auto"]["message"]
    assert "('platform', " in said["doctor"]
    assert FOUND[name] in said["doctor"]


@pytest.mark.parametrize("name", FOUND)
@pytest.mark.parametrize(
    "words",
    [
        "run -- true",
        "run --policy strict --json -- true",
        "run --secret A=env:HOME@env:A -- true",
        "score",
        "policy learn -- true",
        "bench",
        "run --backend auto -- true",
    ],
)
def test_the_command_line_says_so_in_one_line_and_ends_with_125(other, name, words):
    code, text = other(name)["said"][f"kavach {words}"]
    assert code == 125, text
    assert text.startswith("kavach: ")
    assert text.count("\n") == 1
    assert FOUND[name] in text


@pytest.mark.parametrize("name", FOUND)
def test_doctor_and_backends_report_instead_of_failing(other, name):
    said = other(name)["said"]
    for words in ("doctor", "backends"):
        code, text = said[f"kavach {words}"]
        assert code == 1
        assert FOUND[name] in text
        assert "defect" not in text
    assert said["kavach run --backend noop -- true"][0] == 0


@pytest.mark.parametrize("name", FOUND)
def test_nothing_that_talks_to_a_kernel_is_even_imported(other, name):
    assert set(other(name)["kernel"]) <= TABLES, sorted(set(other(name)["kernel"]) - TABLES)


def test_a_32_bit_interpreter_is_another_platform_too(monkeypatch):
    require_platform()
    monkeypatch.setattr(sys, "maxsize", 2**31 - 1)
    with pytest.raises(UnsupportedError, match="in 32 bits; nothing was run") as refused:
        require_platform()
    assert refused.value.control == "platform"
