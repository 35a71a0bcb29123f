"""A strength is a number from 0 to 100 that carries its label and the rows it was added up from.

Enforces: the range, and that it cannot be changed. Does not: compute (`kavach.policy.strength` does).
May be used by: everybody.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

import msgspec

from kavach.model.validate import Model

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["ScoreRow", "StrengthScore"]

LABELS = ((85, "fortress"), (70, "hardened"), (50, "standard"), (30, "basic"), (0, "minimal"))


class ScoreRow(Model, frozen=True, kw_only=True):
    """One line of a breakdown.

    Args:
        control: a control's name, `base`, or `cap`.
        asked: whether the policy asked for it.
        state: what became of it; `requested` in a requested strength.
        points: what it earned; negative where a cap took points away.
        worth: what it could have earned.
        evidence: what was seen.
        to_raise: what would earn the rest, or empty.
    """

    control: str
    asked: bool
    state: str
    points: int
    worth: int
    evidence: str = ""
    to_raise: str = ""


class StrengthScore(int):
    """An int from 0 to 100: compares, sorts and hashes as one, and reads `69 (standard)`.

    Args:
        value: the number.
        rows: the breakdown; the points of all rows add up to the number, before the range is kept.

    Raises:
        ValueError: outside 0..100.
    """

    rows: tuple[ScoreRow, ...]

    def __new__(cls, value: int, rows: Iterable[ScoreRow] = ()) -> Self:
        """Return the score; see the class."""
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= 100:
            raise ValueError(f"expected a strength from 0 to 100, got {value!r}")
        score = super().__new__(cls, value)
        score.__dict__["rows"] = tuple(rows)
        return score

    @property
    def value(self) -> int:
        """The number as a plain int."""
        return int(self)

    @property
    def label(self) -> str:
        """Minimal, basic, standard, hardened or fortress, in lower case."""
        return next(label for least, label in LABELS if self >= least)

    def to_dict(self) -> dict[str, Any]:
        """Return number, label and breakdown as JSON can hold them."""
        rows: list[dict[str, Any]] = msgspec.to_builtins(list(self.rows))
        return {"value": int(self), "label": self.label, "rows": rows}

    def __str__(self) -> str:
        return f"{int(self)} ({self.label})"

    def __repr__(self) -> str:
        return f"StrengthScore({int(self)})"

    def __format__(self, spec: str) -> str:
        return format(int(self), spec) if spec else str(self)

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"a strength is frozen; {name} cannot be set")

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"a strength is frozen; {name} cannot be deleted")

    def __reduce__(self) -> tuple[Any, ...]:
        return StrengthScore, (int(self), self.rows)
