"""The code scanner: techniques of attack in commands before they run and in what leaves.

Enforces: seven categories, the groups of `kavach.gate.code.groups`, each by what can be parsed first and by patterns
where nothing can. Does not: stop anything: the wall does. May be used by: kavach.gate.
"""

from __future__ import annotations

from kavach.gate.code.scanner import CODE, CodeScanner

__all__ = ["CODE", "CodeScanner"]
