"""`python -m kavach` is the `kavach` command.

Guarantees: the same exit code and words. Does not: do anything by itself. May be called by: the interpreter.
"""

from __future__ import annotations

import sys

from kavach.cli import main

sys.exit(main())
