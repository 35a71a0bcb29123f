"""The command child: from init's fork, through the one-way steps, to execve.

Guarantees: every step of the plan has been taken, in its order, before `standing` is sent; nothing untrusted runs
before `go` arrives; a step that fails is reported with its name and errno and nothing is executed. Does not: report
the ending (init does). May be called by: init only, in a process it has just forked.
"""

from __future__ import annotations

import _socket
import errno
import fcntl
import os
import select

from kavach.launcher import canary, fileops, wire
from kavach.linux import confine, landlock, seccomp

TYPE_CHECKING = False  # the typing module is not part of the jail
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

_NOT_RUNNABLE = 126  # POSIX, Shell Command Language 2.8.2
_NOT_FOUND = 127  # POSIX, Shell Command Language 2.8.2
_SECRETS_FOLDER = b"/run/secrets/"  # kavach.launcher.situation, which the jail does not import
_DEFAULT_PATH = b"/usr/local/bin:/usr/bin:/bin"


class Start:
    """What the steps of one command share."""

    def __init__(self, channel: _socket.socket, ruleset: int, canaries: tuple[tuple[Any, ...], ...]) -> None:
        self.channel = channel
        self.ruleset = ruleset
        self.canaries = canaries
        self.outcomes: list[tuple[bytes, int, int]] = []


def own_session(start: Start) -> None:
    """Lead a session and process group of its own, with no signal blocked."""
    os.setsid()
    confine.unblock_signals()


def limits(start: Start, rows: tuple[tuple[int, int, int], ...]) -> None:
    """Apply the resource limits as (resource, soft, hard)."""
    confine.set_limits(rows)


def processor(start: Start, cores: tuple[int, ...]) -> None:
    """Run on these processors only."""
    # An outer sandbox has pinned this one, and its filter lets nobody change it.
    if not os.sched_getaffinity(0) <= set(cores):
        os.sched_setaffinity(0, cores)


def no_new_privileges(start: Start) -> None:
    """Set no_new_privs."""
    confine.set_no_new_privileges()


def try_before(start: Start) -> None:
    """Show that the acts Landlock must refuse would work without it."""
    start.outcomes += canary.attempt(start.canaries, canary.BEFORE_LANDLOCK)


def restrict(start: Start) -> None:
    """Enter the Landlock domain that init prepared."""
    landlock.restrict_self(start.ruleset)


def try_after(start: Start) -> None:
    """Try the same acts again, still under init's ids, so that only Landlock can be what refuses them."""
    start.outcomes += canary.attempt(start.canaries, canary.AFTER_LANDLOCK)


def ids(start: Start, uid: int, gid: int, clear_groups: int) -> None:
    """Take the command's ids."""
    confine.set_ids(uid, gid, clear_groups=bool(clear_groups))


def no_capabilities(start: Start) -> None:
    """Drop every capability from every set."""
    confine.keep_capabilities(())


def empty_bounding_set(start: Start) -> None:
    """Empty the bounding set and lock the securebits, where init could not do it for its children."""
    confine.empty_bounding_set()
    confine.lock_securebits()


def die_with_init(start: Start) -> None:
    """Be killed when init ends, also when it ended a moment ago; close own memory until execve."""
    # ORDER: a change of ids clears both.
    confine.die_with_parent()
    confine.set_undumpable()
    poll = select.poll()
    poll.register(start.channel.fileno(), select.POLLHUP)
    if poll.poll(0):
        raise OSError(errno.EPIPE, "the host has gone")


def close_descriptors(start: Start) -> None:
    """Close all but the channel."""
    confine.close_all_but((start.channel.fileno(),))


def niceness(start: Start, increment: int, umask: int) -> None:
    """Set the scheduling priority and the file creation mask."""
    os.nice(increment)
    os.umask(umask)


def system_call_filter(start: Start, program: bytes, flags: int) -> None:
    """Install the filter; a listener it makes goes to the host at once."""
    listener = seccomp.install(program, flags)
    if flags & seccomp.SECCOMP_FILTER_FLAG_NEW_LISTENER:  # whose descriptor may be 0, for all others are closed
        wire.send(start.channel, (b"listener",), (listener,))
        os.close(listener)


def try_final(start: Start) -> None:
    """Try what must fail in the state the command will run in."""
    start.outcomes += canary.attempt(start.canaries, canary.FINAL)


STEPS: dict[bytes, Callable[..., None]] = {
    b"own_session": own_session,
    b"limits": limits,
    b"processor": processor,
    b"no_new_privileges": no_new_privileges,
    b"try_before": try_before,
    b"restrict": restrict,
    b"try_after": try_after,
    b"ids": ids,
    b"no_capabilities": no_capabilities,
    b"empty_bounding_set": empty_bounding_set,
    b"die_with_init": die_with_init,
    b"close_descriptors": close_descriptors,
    b"niceness": niceness,
    b"system_call_filter": system_call_filter,
    b"try_final": try_final,
}


def run(
    channel: _socket.socket,
    ruleset: int,
    steps: tuple[tuple[bytes, int, tuple[Any, ...]], ...],
    canaries: tuple[tuple[Any, ...], ...],
) -> None:
    """Take the steps, stand, wait for `go`, become the command; never returns."""
    start = Start(channel, ruleset, canaries)
    lost = []
    for name, required, arguments in steps:
        try:
            STEPS[name](start, *arguments)
        except OSError as error:
            if required:
                _give_up(channel, name, error.errno or errno.EIO)
            lost.append((name, error.errno or errno.EIO))
    wire.send(channel, (b"standing", os.getpid(), tuple(start.outcomes), tuple(lost)))
    try:
        message, descriptors, _ = wire.receive(channel)
    except EOFError:
        os._exit(_NOT_RUNNABLE)
    except ValueError:
        _give_up(channel, b"descriptors", errno.EMFILE)  # more of them than RLIMIT_NOFILE lets in
    _go(channel, message, descriptors)


def _give_up(channel: _socket.socket, name: bytes, code: int) -> None:
    wire.send(channel, (b"not_started", name, code))
    os._exit(_NOT_FOUND if code == errno.ENOENT else _NOT_RUNNABLE)


def _go(channel: _socket.socket, message: Any, descriptors: list[int]) -> None:
    verb, argv, environment, cwd, numbers, secrets, files = message
    stage = b"secrets"
    try:
        variables = dict(environment)
        for variable, index in secrets:
            variables[variable] = _read_all(descriptors[index])
        for path, mode, index in files:
            _write_secret(path, mode, _read_all(descriptors[index]))
        stage = b"descriptors"
        _place(channel, descriptors, numbers)
        stage = b"cwd"
        os.chdir(cwd)
        if verb == b"go":
            stage = b"execve"
            _execute(argv, variables)
        stage = verb
        fileops.perform(argv)
        os._exit(0)
    except OSError as error:
        _give_up(channel, stage, error.errno or errno.EIO)


def _read_all(handle: int) -> bytes:
    parts: list[bytes] = []
    while part := os.pread(handle, 65536, sum(map(len, parts))):
        parts.append(part)
    return b"".join(parts)


def _write_secret(path: bytes, mode: int, value: bytes) -> None:
    """Write one secret's file; below the secrets' own folder in the place of the one that an earlier command got."""
    if path.startswith(_SECRETS_FOLDER):
        try:  # noqa: SIM105 - contextlib is not part of the jail
            os.unlink(path)
        except FileNotFoundError:
            pass
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        view = memoryview(value)
        while view:
            view = view[os.write(handle, view) :]
        os.fchmod(handle, mode)
    finally:
        os.close(handle)


def _place(channel: _socket.socket, descriptors: list[int], numbers: tuple[tuple[int, int], ...]) -> None:
    """Give descriptor `index` the number `number`, for each pair; everything else ends with execve."""
    # ORDER: all sources are first moved above every target, so that no dup2 overwrites one still needed.
    floor = max((number for number, _ in numbers), default=2) + 1
    moved = {index: _above(descriptors[index], floor) for _, index in numbers}
    if channel.fileno() < floor:
        high = _above(channel.fileno(), floor)
        channel.detach()
        channel.__init__(fileno=high)  # type: ignore[misc]  # the same object, moved
    for number, index in numbers:
        os.dup2(moved[index], number, inheritable=True)


def _above(handle: int, floor: int) -> int:
    return fcntl.fcntl(handle, fcntl.F_DUPFD_CLOEXEC, floor)


def _execute(argv: tuple[bytes, ...], variables: dict[bytes, bytes]) -> None:
    """Replace this process; a bare name is looked up in the command's own PATH, inside."""
    name = argv[0]
    if b"/" in name:
        os.execve(name, argv, variables)
    worst = OSError(errno.ENOENT, "not found")
    for folder in variables.get(b"PATH", _DEFAULT_PATH).split(b":"):
        try:
            os.execve((folder or b".") + b"/" + name, argv, variables)
        except OSError as error:
            if error.errno not in {errno.ENOENT, errno.ENOTDIR}:
                worst = error
    raise worst
