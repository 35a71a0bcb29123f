"""Answers every call that a listening filter asks about, and keeps what was refused, or will be, for the report.

Guarantees: a call that the filter's rules refuse is refused with their errno, on its registers alone; every other is
left to the kernel, behind every other control; whatever fails here, no call is allowed that the rules refuse, and
where this thread ends the kernel refuses (ENOSYS). Does not: hold anything back by what it reads in memory. It goes on
until the last process under the filter has ended or the wall is destroyed. May be called by: kavach.backends.process.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import threading
from typing import TYPE_CHECKING, NamedTuple

from kavach.launcher import client, watch_outcome, watch_paths, watch_sight
from kavach.launcher.filters import command_options, command_rules
from kavach.linux import notify
from kavach.policy.learn import Access, Attempt, Cause, describe
from kavach.policy.seccomp_oracle import Oracle

if TYPE_CHECKING:
    from kavach.launcher.groups import Group
    from kavach.launcher.lower import LaunchPlan
    from kavach.launcher.watch_outcome import Rules
    from kavach.launcher.watch_paths import Ids
    from kavach.linux.notify import Notification
    from kavach.model.policy import SandboxPolicy
    from kavach.model.result import Denial
    from kavach.policy.seccomp_oracle import CallVerdict

MAX_ATTEMPTS = 256  # protects this host's memory against a command that fails for ever; the first ones are kept


class Scene(NamedTuple):
    """What is in force where a command runs: the filter's rules, and the other controls for the report."""

    policy: SandboxPolicy
    machine: str
    options: tuple[str, ...]
    oracle: Oracle
    rules: Rules


class Watches:
    """The watches of one sandbox: one for each command, for as long as a process of it lives.

    Args:
        policy: what is asked.
        plan: how it was lowered.
        group: the limits' group, whose means narrow the filter.
    """

    def __init__(self, policy: SandboxPolicy, plan: LaunchPlan, group: Group) -> None:
        options = command_options(policy, group, has_network_namespace="net" in plan.namespaces)
        machine = os.uname().machine
        oracle = Oracle(command_rules(policy, options), machine)
        self._scene = Scene(policy, machine, options, oracle, watch_outcome.rules_of(policy, plan))
        self._watches: list[Watch] = []

    def start(self, listener: int) -> Watch:
        """Answer a listener's questions from now on."""
        self._watches = [one for one in self._watches if one.is_open]
        self._watches.append(Watch(listener, self._scene))
        return self._watches[-1]

    def close(self) -> None:
        """Answer nothing more; idempotent."""
        for one in self._watches:
            one.close()


class Watch:
    """One listener's answers; starts at once.

    Args:
        listener: taken over.
        scene: what is in force.
    """

    def __init__(self, listener: int, scene: Scene) -> None:
        self._listener = listener
        self._scene = scene
        self._attempts: dict[tuple[str, ...], Attempt] = {}
        self._lock = threading.Lock()
        self._ids: Ids | None = None
        self._is_armed = False
        self._wake, self._waker = os.pipe2(os.O_CLOEXEC)
        client.hold(self)
        self._thread = threading.Thread(target=self._serve, name="kavach-watch", daemon=True)
        self._thread.start()

    @property
    def is_open(self) -> bool:
        """Whether it still answers."""
        return self._waker >= 0

    def arm(self) -> None:
        """Keep what is refused from now on: what came before were the wall's own canaries."""
        self._is_armed = True

    def not_found(self, program: str) -> None:
        """Keep that a command's own program was not found, for its first call cannot be read by everyone.

        Until execve the child is closed to every process without privileges, this one too.
        """
        attempt = watch_outcome.program_attempt(self._scene.rules, program)
        if attempt is not None:
            self._keep([attempt])

    def denials(self) -> tuple[Denial, ...]:
        """Return what was refused since `arm`, each once, in order."""
        with self._lock:
            found = tuple(self._attempts.values())
        scene = self._scene
        return tuple(describe(one, scene.policy, machine=scene.machine, options=scene.options) for one in found)

    def close(self) -> None:
        """Answer nothing more; idempotent. Calls that still wait fail with ENOSYS."""
        with self._lock:
            if self._waker >= 0:
                os.write(self._waker, b"x")
        self._thread.join()

    def abandon(self) -> None:
        """In a forked child of the host: let go of what belongs to the parent."""
        self._lock = threading.Lock()  # another thread may have held it when the host forked
        self._release()

    def _release(self) -> None:
        with self._lock:
            for handle in (self._listener, self._wake, self._waker):
                if handle >= 0:
                    os.close(handle)
            self._listener = self._wake = self._waker = -1

    def _serve(self) -> None:
        poll = select.poll()
        poll.register(self._listener, select.POLLIN)
        poll.register(self._wake, select.POLLIN)
        # SECURITY: whatever ends this thread closes the listener, and the kernel then refuses what would be asked.
        try:
            while True:
                events = dict(poll.poll())
                if self._wake in events or events.get(self._listener, 0) & ~select.POLLIN:
                    return  # the wall goes, or POLLHUP: no process is left under the filter (5.9)
                notification = notify.receive(self._listener)
                if notification is not None:
                    self._take(notification)
        finally:
            self._release()

    def _take(self, notification: Notification) -> None:
        verdict = self._scene.oracle.judge(
            notification.number, notification.arguments, audit_arch=notification.architecture
        )
        if self._is_armed:
            # A process that has gone, or is closed to this one, costs the report a line and nothing else.
            with contextlib.suppress(OSError, ValueError):
                self._look(notification, verdict)
        # SECURITY: the answer rests on the verdict alone, which rests on registers alone.
        if verdict.allowed:
            notify.go_on(self._listener, notification)
        else:
            notify.refuse(self._listener, notification, verdict.errno or errno.EPERM)

    def _look(self, notification: Notification, verdict: CallVerdict) -> None:
        if self._ids is None:
            # Once: without capabilities no process of the sandbox can take another id.
            self._ids = watch_paths.read_ids(notification.thread)
        found = _attempts(self._scene.rules, self._ids, notification, verdict)
        # ORDER: the number may belong to another thread by now; what was read counts only if the call still waits.
        if not notify.is_waiting(self._listener, notification):
            return
        self._keep(found)

    def _keep(self, found: list[Attempt]) -> None:
        with self._lock:
            for attempt in found:
                key = (
                    attempt.access,
                    attempt.cause,
                    attempt.call if attempt.access is Access.CALL else "",
                    attempt.target,
                )
                if len(self._attempts) < MAX_ATTEMPTS:
                    self._attempts.setdefault(key, attempt)


def _attempts(rules: Rules, ids: Ids, notification: Notification, verdict: CallVerdict) -> list[Attempt]:
    call = verdict.call or f"number {notification.number}"
    uses = watch_sight.paths(call, notification)
    peer = watch_sight.peer(call, notification)
    if not verdict.allowed:
        target = (
            uses[0].path if uses else f"{peer.host}:{peer.port}" if peer is not None else _words(call, notification)
        )
        return [
            Attempt(
                Access.CALL,
                Cause.FILTER,
                call,
                target,
                number=notification.number,
                arguments=notification.arguments,
                reason=verdict.why[-1] if verdict.why else "not allowed",
            )
        ]
    creates = watch_sight.creates(call, notification)
    found = [watch_outcome.path_attempt(rules, notification.thread, ids, call, use, creates=creates) for use in uses]
    if peer is not None and peer.family == "unix":
        use = watch_sight.PathUse(Access.LOOK, peer.host, follow=True)
        found.append(watch_outcome.path_attempt(rules, notification.thread, ids, call, use, creates=False))
    elif peer is not None:
        found.append(watch_outcome.peer_attempt(rules, notification.thread, call, peer))
    return [one for one in found if one is not None]


#: The argument that tells most about a call whose arguments are plain numbers, and the path of one that names a place.
_PLACES = {"mount": 1, "umount2": 0, "chroot": 0, "pivot_root": 0, "swapon": 0, "acct": 0}


def _words(call: str, notification: Notification) -> str:
    """Return what a refused call was about, for the report: a path where it names one, else nothing."""
    at = _PLACES.get(call)
    if at is None:
        return ""
    try:
        return os.fsdecode(notify.read_text(notification.thread, notification.arguments[at]))
    except OSError:
        return ""
