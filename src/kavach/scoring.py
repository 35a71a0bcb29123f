"""The public face of strength: what a wall is worth by name, as asked, and as observed.

Enforces: nothing; every function is pure. Does not: probe or run anything: `kavach score` and a result's
`score` come from rows that a run observed. May be used by: everybody.
"""

from __future__ import annotations

from kavach.model.score import ScoreRow, StrengthScore
from kavach.policy.strength import WEIGHTS_VERSION, base_score, score_backend, score_enforcement

__all__ = [
    "WEIGHTS_VERSION",
    "ScoreRow",
    "StrengthScore",
    "base_score",
    "score_backend",
    "score_enforcement",
]
