"""What changed between two policies, leaf by leaf, and what it does to the strength.

Enforces: every leaf that differs is listed. Does not: say whether a change is wise, or look at a host: the
strengths are requested ones. Called by the CLI's `policy diff` and `learn`; pure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from kavach.model.policy import GROUPS
from kavach.model.score import StrengthScore
from kavach.model.validate import Model
from kavach.policy.strength import score_backend

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kavach.model.backend import Backend
    from kavach.model.policy import SandboxPolicy

__all__ = ["LeafChange", "PolicyDifference", "compare"]


class LeafChange(Model, frozen=True, kw_only=True):
    """One leaf that differs.

    Args:
        key: its path, `limits.memory_limit_mb`.
        before: the value before, as JSON can hold it.
        after: the value after.
    """

    key: str
    before: Any
    after: Any

    def __str__(self) -> str:
        return f"{self.key}: {_words(self.before)} -> {_words(self.after)}"


class PolicyDifference(Model, frozen=True, kw_only=True):
    """Every leaf that differs, and both requested strengths.

    Args:
        changes: in the order of the policy's fields.
        score_before: what the wall would be worth under the first policy.
        score_after: and under the second.
    """

    changes: tuple[LeafChange, ...]
    score_before: StrengthScore
    score_after: StrengthScore

    @property
    def score_change(self) -> int:
        """Points won, or lost if negative."""
        return int(self.score_after) - int(self.score_before)


def compare(before: SandboxPolicy, after: SandboxPolicy, *, backend: Backend | str = "process") -> PolicyDifference:
    """Return what changed.

    Args:
        before: a valid policy.
        after: another.
        backend: the wall whose requested strength is compared.

    Raises:
        BackendUnavailable: no wall has that name.
        ConfigError: a policy is not valid.
        PolicyError: a policy contradicts itself.
    """
    return PolicyDifference(
        changes=tuple(_changes(before, after)),
        score_before=score_backend(backend, before),
        score_after=score_backend(backend, after),
    )


def _changes(before: SandboxPolicy, after: SandboxPolicy) -> Iterator[LeafChange]:
    for name in before.__struct_fields__:
        if name in GROUPS:
            old, new = getattr(before, name), getattr(after, name)
            for leaf in old.__struct_fields__:
                yield from _change(f"{name}.{leaf}", getattr(old, leaf), getattr(new, leaf))
        else:
            yield from _change(name, getattr(before, name), getattr(after, name))


def _change(key: str, before: object, after: object) -> Iterator[LeafChange]:
    if before != after:
        yield LeafChange(key=key, before=_plain(before), after=_plain(after))


def _plain(value: object) -> Any:  # noqa: ANN401 - JSON
    plain = msgspec.to_builtins(value)
    if isinstance(plain, list | tuple):
        return [one["path"] if isinstance(one, dict) else one for one in plain]
    return plain


def _words(value: object) -> str:
    if value is None:
        return "unrestricted"
    if isinstance(value, list):
        return ", ".join(str(one) for one in value) if value else "nothing"
    return str(value).lower() if isinstance(value, bool) else str(value)
