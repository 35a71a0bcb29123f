"""What the command line keeps of its runs: this user's audit log, withheld outputs, and the keys to sign with.

Guarantees: folders are the user's own, 0700; a key is made once, whole, 0600, by whoever comes first; a key that is
gone while what it signed is there is never made anew. Does not: decide what is recorded (`kavach.sandbox` does) or read
a key before it is needed: Ed25519 is loaded when a receipt is to be signed. May be called by: kavach.cli.
"""

from __future__ import annotations

import contextlib
import os
import stat
from typing import TYPE_CHECKING, Any

from kavach.errors import AuditError, ConfigError, KavachError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from kavach.audit.log import AuditLog
    from kavach.audit.signing import SigningKey
    from kavach.gate.quarantine import QuarantineMove, QuarantineStore

_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0)  # no such flag on Windows
_ROTATE_BYTES = 64 << 20  # a closed file of the log can be moved away; see docs/audit.md
_QUARANTINE_BYTES = 1 << 30  # protects the home folder: the oldest decided outputs go first, and that is recorded
_AUDIT_KEY_BYTES = 32  # HMAC-SHA256; RFC 2104, section 3
_HINT = "XDG_STATE_HOME names another place; kavach run --no-record keeps no record"


def find_state(environ: Mapping[str, str]) -> State:
    """Return where this user's records are; nothing of it need be there.

    Args:
        environ: XDG_STATE_HOME, else HOME, says where (XDG Base Directory 0.8); a relative path counts as none.

    Raises:
        ConfigError: neither says where.
    """
    home = environ.get("XDG_STATE_HOME", "")
    if not os.path.isabs(home):
        if not os.path.isabs(environ.get("HOME", "")):
            raise ConfigError("there is no place for records: neither XDG_STATE_HOME nor HOME names one", hint=_HINT)
        home = os.path.join(environ["HOME"], ".local", "state")
    return State(os.path.join(home, "kavach"))


@contextlib.contextmanager
def open_records(environ: Mapping[str, str], *, signed: bool, durable: bool) -> Iterator[dict[str, Any]]:
    """Yield the fields of a `SandboxConfig` that let its runs be recorded; the log is closed at the end.

    Args:
        environ: as for `find_state`.
        signed: a receipt will be exported.
        durable: each record is on the disk before anything goes on.

    Raises:
        AuditError: no record can be kept.
    """
    with contextlib.ExitStack() as stack:
        try:
            state = find_state(environ)
            state.make()
            log = stack.enter_context(state.open_log(durable=durable))
            fields: dict[str, Any] = {"audit": log, "quarantine": state.open_quarantine(log)}
            if signed:
                fields["receipt_key"] = state.signing_key()
        except KavachError as error:
            check = getattr(error, "check", None)
            message = f"nothing was run, for no record can be kept: {error}"
            raise AuditError(message, check=check, hint=error.hint or _HINT) from None
        yield fields


class State:
    """One user's folder of records.

    Args:
        path: absolute.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self.log_path: str = os.path.join(path, "audit", "audit.jsonl")
        self.quarantine_path: str = os.path.join(path, "quarantine")
        self.audit_key_path: str = os.path.join(path, "keys", "audit.key")
        self.receipt_key_path: str = os.path.join(path, "keys", "receipt.pem")
        self.public_key_path: str = os.path.join(path, "keys", "receipt.pub.pem")

    def make(self) -> None:
        """Let the folders be there, this user's alone.

        Raises:
            AuditError: they cannot be made, or somebody else has a hand in them.
        """
        there = self.path
        while not os.path.lexists(there):
            there = os.path.dirname(there)
        try:
            # SECURITY: `sudo` may keep HOME: root must not leave folders in a home whose owner could replace them.
            if os.stat(there).st_uid not in {0, os.geteuid()}:
                raise AuditError(f"{there}: it belongs to another user", check="open")
            os.makedirs(os.path.dirname(self.path), mode=0o700, exist_ok=True)
            _make_private(self.path, forbidden=0o022)  # the status files beside us may have made it, readable
            for name in ("audit", "quarantine", "keys"):
                _make_private(os.path.join(self.path, name), forbidden=0o077)
        except OSError as error:
            raise AuditError(f"{self.path}: cannot be made: {error.strerror}", check="open") from None

    def open_log(self, *, durable: bool = False) -> AuditLog:
        """Open the log, which is begun where there is none.

        Raises:
            AuditError: it cannot be opened, its end does not hold, or its key is lost.
        """
        from kavach.audit.log import AuditLog

        key = _keep(self.audit_key_path, self.log_path, lambda: os.urandom(_AUDIT_KEY_BYTES).hex().encode() + b"\n")
        return AuditLog(self.log_path, key_file=key, fsync="always" if durable else "batch", rotate_bytes=_ROTATE_BYTES)

    def open_quarantine(self, log: AuditLog | None) -> QuarantineStore:
        """Open the store of withheld outputs.

        Args:
            log: each decision about an output is recorded here before it is made; None = only to read.

        Raises:
            KavachError: the store cannot be opened.
        """
        from kavach.audit.payload import AuditEvent, quarantine_payload
        from kavach.gate.quarantine import QuarantineStore

        before: dict[str, str] = {}

        def record(move: QuarantineMove) -> None:
            if log is None or move.state == "quarantined":  # which the sandbox records
                return
            held = store.entry(move.id)
            payload = quarantine_payload(move.id, before=before.get(move.id, held.state), after=move.state, by=move.by)
            log.append(
                AuditEvent.QUARANTINE,
                sandbox_id=held.sandbox_id,
                agent_id=held.agent_id,
                payload=payload,
                durable=True,
            )
            before[move.id] = move.state

        store = QuarantineStore(self.quarantine_path, max_bytes=_QUARANTINE_BYTES, record=record)
        return store

    def signing_key(self) -> SigningKey:
        """Return the key that signs receipts, which is made where there is none, and its public half beside it.

        Raises:
            AuditError: it cannot be made or read, or it is lost.
            ConfigError: the file holds something else.
        """
        from kavach.audit.signing import SigningKey

        key = SigningKey.from_file(_keep(self.receipt_key_path, self.public_key_path, _new_signing_key))
        _keep(self.public_key_path, None, key.public.pem)
        return key


def _make_private(folder: str, *, forbidden: int) -> None:
    with contextlib.suppress(FileExistsError):
        os.mkdir(folder, 0o700)
    found = os.lstat(folder)
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & forbidden:
        raise AuditError(
            f"{folder}: expected a folder of this user's alone, got owner {found.st_uid} and mode "
            f"{stat.S_IMODE(found.st_mode):04o}",
            check="open",
            hint=f"chmod 700 {folder}",
        )


def _keep(path: str, witness: str | None, make: Callable[[], bytes]) -> str:
    """Return the path of a file that is there, whole; where it was not, it is made, by whoever comes first.

    Args:
        path: the key's.
        witness: what is made after the key; where it is there and the key is not, the key is lost.
        make: returns what the file will hold.

    Raises:
        AuditError: it cannot be made, or it is lost.
    """
    # ORDER: the witness first; in the other order, another process could make both between the two looks.
    has_witness = witness is not None and os.path.lexists(witness)
    if os.path.lexists(path):
        return path
    if has_witness:
        raise AuditError(
            f"{path}: the key is lost, and {witness} was written with it",
            check="key",
            hint="put the key back, or move what was written with it away",
        )
    staged = f"{path}.{os.urandom(8).hex()}"
    try:
        handle = os.open(staged, _NEW, 0o600)
        try:
            with open(handle, "wb") as file:
                file.write(make())
                file.flush()
                os.fsync(handle)
            with contextlib.suppress(FileExistsError):  # another one came first, with a whole file
                os.link(staged, path)
        finally:
            os.unlink(staged)
    except OSError as error:
        raise AuditError(f"{path}: the key cannot be made: {error.strerror}", check="key") from None
    return path


def _new_signing_key() -> bytes:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    key = Ed25519PrivateKey.generate()
    # SECURITY: not encrypted: a password beside it would guard nothing; the file and its folder are the user's alone.
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
