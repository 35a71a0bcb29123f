"""The two shapes that most secrets have: a token that tells itself, and a value that its name tells.

Enforces: a token ends where its alphabet ends, on both sides, also inside escapes; stand-ins and values of too little
entropy do not count. Does not: hold a vendor's format; those stand as data in this package's other modules. May be
used by: kavach.gate.secrets.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from kavach.errors import InternalError
from kavach.gate.expression import parse
from kavach.gate.rule import Rule
from kavach.gate.secrets.chance import entropy, is_made, is_stand_in
from kavach.gate.secrets.published import is_published
from kavach.gate.seeds import longest

if TYPE_CHECKING:
    from collections.abc import Callable

    from kavach.gate.rule import Match
    from kavach.model.verdict import Severity

REST = r"(?:[ \t]{1,3}[A-Za-z]{2,10})?[\]\"'`)\\ \t]{0,6}(?:[ \t]value)?"
"""What may stand between a name and the operator: a type, the end of a quoted name, XML's `value`."""
OPERATOR = (
    r"(?:(?:=>|:{1,3}=|[.?+|!]?={1,3}|\|\||:)[ \t\"'`\\(\[]{0,8}(?:[brufBRUF@]{1,2}[\"'`])?"
    r"|[,(][ \t\\(\[]{0,6}[brufBRUF@]{0,2}\\?[\"'`]|>\s{0,40}[\"']?|:[ \t]{1,4}[|>][+-]?\s{1,40})"
)
"""An operator of one of many languages and what opens a value; behind a comma or a bracket only a quoted one counts."""
BETWEEN = r"[\w.\-]{0,40}" + REST + OPERATOR
"""The rest of a name, an operator, and the opening of a value."""
BETWEEN_BYTES = longest(parse(BETWEEN)) or 0

_OPTIONAL = re.compile(r".\?|[^\w-]")  # where a word of a rule stops being literal
_WORD = re.compile(rb"[A-Za-z0-9_]")
# A letter before a token may be the end of an escape: \n in JSON, %3D in a URL, \u0022 in JSON, \x22 in Python.
_ESCAPE_END = re.compile(
    rb"(?:\\[nrtbf0]|%[0-9A-Fa-f]{2}|\\u[0-9A-Fa-f]{4}|\\x[0-9A-Fa-f]{2}|\\[0-7]{3}|\x1b\[[0-9;]*m)\Z"
)
_TAIL = re.compile(rb"[A-Za-z0-9_]|[-+/=][A-Za-z0-9_+/=-]|\.[A-Za-z0-9]")


class Check(NamedTuple):
    """What a match of a token or a keyed value has to stand besides its expression.

    Args:
        group: which group is the secret.
        bits: the least entropy, in bits a byte.
        test: a vendor's own check of the value; None = none.
        may_touch: whether letters may stand directly before or behind it.
        may_stand_in: whether words like "example" in it are chance.
    """

    group: int
    bits: float
    test: Callable[[bytes], bool] | None = None
    may_touch: bool = False
    may_stand_in: bool = False

    def holds(self, found: Match) -> bool:
        """Return whether a match counts."""
        value = found.group(self.group)
        if entropy(value) < self.bits or (not self.may_stand_in and is_stand_in(value)):
            return False
        if is_published(value) or (not self.may_touch and not is_apart(found, self.group)):
            return False
        return self.test is None or self.test(value)


def is_apart(found: Match, group: int = 0) -> bool:
    """Whether what a group holds is not a piece of a longer word.

    Args:
        found: the match; a group must end where the match ends.
        group: which group.
    """
    if group == 0:
        before = found.before(8)
        if _WORD.match(before[-1:]) is not None and _ESCAPE_END.search(before) is None:
            return False
    return _TAIL.match(found.after(2)) is None


def token(
    name: str,
    category: str,
    severity: Severity,
    message: str,
    expression: str,
    literals: tuple[bytes, ...],
    *,
    bits: float = 2.7,
    group: int = 0,
    test: Callable[[bytes], bool] | None = None,
    max_bytes: int | None = None,
    may_touch: bool = False,
    may_stand_in: bool = False,
) -> Rule:
    """Return the rule for a secret that tells itself by its form.

    Args:
        name: the rule's.
        category: its family.
        severity: what the secret is worth to whoever finds it.
        message: one sentence.
        expression: the whole token.
        literals: as in `Rule`.
        bits: the least entropy of the token, in bits a byte.
        group: which group is the secret.
        test: the vendor's own check.
        max_bytes: needed where the expression has no longest match.
        may_touch: whether letters may stand directly beside it.
        may_stand_in: whether words like "example" in it are chance.

    Raises:
        InternalError: the expression has no longest match and `max_bytes` is not given.
    """
    size = max_bytes or _size(name, expression)
    check = Check(group, bits, test, may_touch, may_stand_in)
    return Rule(name, category, severity, message, expression, size, literals, group, check.holds)


def keyed(
    name: str,
    category: str,
    severity: Severity,
    message: str,
    words: tuple[str, ...],
    value: str,
    *,
    bits: float = 2.3,
    test: Callable[[bytes], bool] = is_made,
) -> Rule:
    """Return the rule for a value whose form tells nothing without a name beside it.

    Args:
        name: the rule's.
        category: its family.
        severity: what the secret is worth to whoever finds it.
        message: one sentence.
        words: lower-case words, one of which is in the name; also found in capitals and with a capital.
        value: the value's expression, without groups.
        bits: the least entropy of the value, in bits a byte.
        test: the vendor's own check.
    """
    forms = "|".join(form for word in words for form in dict.fromkeys((word, word.upper(), word.capitalize())))
    literals = tuple(_OPTIONAL.split(word)[0].lower().encode() for word in words)
    size = _size(name, forms) + BETWEEN_BYTES + _size(name, value)
    check = Check(1, bits, test)
    return Rule(name, category, severity, message, f"(?:{forms}){BETWEEN}({value})", size, literals, 1, check.holds)


def _size(name: str, expression: str) -> int:
    size = longest(parse(expression))
    if size is None:
        raise InternalError(f"rule {name}: its longest match is not known")
    return size
