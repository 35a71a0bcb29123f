"""A sandbox is in one of five states, and exactly eight steps lead from one to another.

Enforces: that no other step is taken, whoever asks. Does not: hold a state, lock, or do what a state means;
the lifecycle in `kavach.sandbox` does, under its lock, and asks here first.
"""

from __future__ import annotations

import enum

from kavach.errors import LifecycleError

__all__ = ["TRANSITIONS", "SandboxState", "can_transition", "require_state", "transition"]


class SandboxState(enum.StrEnum):
    """Where a sandbox is in its life; the names are what audit records say."""

    CREATED = "created"
    RUNNING = "running"
    PAUSED = "paused"
    STOPPED = "stopped"
    DESTROYED = "destroyed"


TRANSITIONS: dict[SandboxState, tuple[SandboxState, ...]] = {
    SandboxState.CREATED: (SandboxState.RUNNING,),
    SandboxState.RUNNING: (SandboxState.PAUSED, SandboxState.STOPPED, SandboxState.DESTROYED),
    SandboxState.PAUSED: (SandboxState.RUNNING, SandboxState.STOPPED, SandboxState.DESTROYED),
    SandboxState.STOPPED: (SandboxState.DESTROYED,),
    SandboxState.DESTROYED: (),
}
"""The eight steps, from each state to those that may follow it."""


def can_transition(state: SandboxState, target: SandboxState) -> bool:
    """Return whether one step leads from `state` to `target`."""
    return target in TRANSITIONS[state]


def transition(state: SandboxState, target: SandboxState) -> SandboxState:
    """Return `target` if one step leads there; nothing is changed by asking.

    Args:
        state: the state a sandbox is in.
        target: the state it shall be in.

    Raises:
        LifecycleError: no step leads there; says which ones do.
    """
    if target in TRANSITIONS[state]:
        return target
    allowed = ", ".join(TRANSITIONS[state]) or "nothing"
    raise LifecycleError(
        f"a {state} sandbox cannot become {target}; expected {allowed}", state=str(state), target=str(target)
    )


def require_state(state: SandboxState, allowed: tuple[SandboxState, ...], act: str) -> None:
    """Return None if `act` may happen in this state.

    Args:
        state: the state a sandbox is in.
        allowed: the states in which it may happen.
        act: what was asked for, for the message.

    Raises:
        LifecycleError: it may not.
    """
    if state not in allowed:
        raise LifecycleError(
            f"{act} needs a sandbox that is {' or '.join(allowed)}; this one is {state}",
            state=str(state),
            target=act,
        )
