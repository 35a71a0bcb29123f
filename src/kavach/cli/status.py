"""Where processes of one user tell `kavach top` of their sandboxes, and the bus that does the telling.

Guarantees: the folder is the user's own; nothing is written unless a command of this command line, or a library user
who makes a `StatusFile`, asks for it; a folder that cannot be had costs the telling, never the run. May be called by:
kavach.cli.
"""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

from kavach.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from kavach.audit.events import EventBus

_FOLDER = "kavach"


def status_folder(environ: Mapping[str, str]) -> str:
    """Return the folder of this user's status files; it need not be there.

    Args:
        environ: XDG_RUNTIME_DIR where it is set; else below XDG_STATE_HOME or the home folder (XDG Base Directory 0.8).
    """
    runtime = environ.get("XDG_RUNTIME_DIR", "")
    if os.path.isabs(runtime):
        return os.path.join(runtime, _FOLDER)
    state = environ.get("XDG_STATE_HOME", "")
    if not os.path.isabs(state):
        state = os.path.join(environ.get("HOME", "") or "/nonexistent", ".local", "state")
    return os.path.join(state, _FOLDER, "run")


@contextlib.contextmanager
def told_bus(environ: Mapping[str, str]) -> Iterator[EventBus]:
    """Yield a bus whose events `kavach top` shows; what could not be delivered is dropped at the end."""
    from kavach.audit.events import EventBus
    from kavach.audit.sinks.status import StatusFile

    with contextlib.ExitStack() as stack:
        bus = stack.enter_context(EventBus())
        with contextlib.suppress(ConfigError):  # a read-only home is no reason not to run
            bus.subscribe("#", stack.enter_context(StatusFile(status_folder(environ))))
        yield bus
