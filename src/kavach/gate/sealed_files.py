"""A private folder whose files are there whole or not at all, encrypted if the caller gives a key.

Enforces: the folder belongs to this user and to nobody else (0700), files are 0600, made with O_EXCL and O_NOFOLLOW,
written out to the disk before they get their name. Does not: know what is in a file, or keep a key. May be used by:
kavach.gate.quarantine.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import os
import stat
from typing import TYPE_CHECKING, NamedTuple

from kavach.errors import ConfigError, KavachError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

KEY_BYTES = 32  # AES-256, NIST SP 800-38D
_NONCE_BYTES = 12  # NIST SP 800-38D section 8.2: the recommended length; random, one for each file
_PLAIN, _SEALED = b"KVQ0", b"KVQ1"
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_OLD = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
_UNFINISHED = ".tmp"


class Stored(NamedTuple):
    """What a file takes on the disk.

    Args:
        size_bytes: with what encryption adds.
        digest: SHA-256 of it.
    """

    size_bytes: int
    digest: str


class SealedFolder:
    """One private folder of whole files. Safe to use from any thread and process.

    Args:
        path: the folder; made if it is missing, its parent must exist.
        key: 32 bytes to encrypt with (AES-256-GCM), or None to leave that to the disk.
        random: a source of random bytes.

    Raises:
        ConfigError: the folder is a link, belongs to somebody else or is open to others; or the key has another length.
        KavachError: the folder cannot be made or opened.
    """

    def __init__(self, path: str, *, key: bytes | None, random: Callable[[int], bytes]) -> None:
        if key is not None and (not isinstance(key, bytes) or len(key) != KEY_BYTES):
            raise ConfigError(f"key: expected {KEY_BYTES} bytes", key="key")
        self._key = key
        self._random = random
        self.path = path
        with _told("opened"):
            with contextlib.suppress(FileExistsError):
                os.mkdir(path, 0o700)
            with self._opened() as folder:
                found = os.fstat(folder)
        if found.st_uid != os.geteuid() or stat.S_IMODE(found.st_mode) & 0o077:
            raise ConfigError(
                f"the quarantine folder has owner {found.st_uid} and mode {stat.S_IMODE(found.st_mode):04o}; expected "
                f"owner {os.geteuid()} and 0700",
                key="folder",
            )

    @property
    def is_encrypting(self) -> bool:
        """Whether new files are encrypted."""
        return self._key is not None

    def stage(self, name: str, content: bytes) -> Stored:
        """Write a file that has no name yet: `publish` names it.

        Args:
            name: without a folder; bound into the encryption.
            content: what it holds.

        Raises:
            KavachError: it could not be written; nothing of it is left.
        """
        head, body = self._seal(name, content)
        with _told("written"), self._opened() as folder:
            file = os.open(name + _UNFINISHED, _NEW, 0o600, dir_fd=folder)
            try:
                with open(file, "wb") as out:
                    out.writelines((head, body))
                    out.flush()
                    os.fsync(out.fileno())
            except BaseException:
                os.unlink(name + _UNFINISHED, dir_fd=folder)
                raise
        return Stored(len(head) + len(body), _digest(head, body))

    def publish(self, name: str) -> None:
        """Give a staged file its name.

        Raises:
            KavachError: it could not be named.
        """
        with _told("named"), self._opened() as folder:
            os.rename(name + _UNFINISHED, name, src_dir_fd=folder, dst_dir_fd=folder)
            os.fsync(folder)

    def read(self, name: str, *, digest: str) -> bytes:
        """Return a file's content.

        Args:
            name: without a folder.
            digest: SHA-256 of what was stored.

        Raises:
            KavachError: it is missing, was changed, or cannot be decrypted with this key.
        """
        with _told("read"), self._opened() as folder, open(os.open(name, _OLD, dir_fd=folder), "rb") as file:
            head, body = file.read(len(_PLAIN)), file.read()
        if not hmac.compare_digest(_digest(head, body), digest):
            raise KavachError("a quarantined output was changed on the disk; expected the digest of its index")
        return self._unseal(name, head, body)

    def discard(self, name: str) -> None:
        """Remove a file, staged or named, if it is there.

        Raises:
            KavachError: it is there and could not be removed.
        """
        with _told("removed"), self._opened() as folder:
            for candidate in (name, name + _UNFINISHED):
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(candidate, dir_fd=folder)

    def names(self, suffix: str) -> list[tuple[str, float]]:
        """Return the files with this ending, staged ones too, by the name they have or will have, and their age.

        Returns:
            (name, time of last change in seconds since 1970), by name.

        Raises:
            KavachError: the folder cannot be read.
        """
        with _told("listed"), self._opened() as folder, os.scandir(folder) as entries:
            found = [(entry.name.removesuffix(_UNFINISHED), entry.stat(follow_symlinks=False)) for entry in entries]
        return sorted((name, status.st_mtime) for name, status in found if name.endswith(suffix))

    @contextlib.contextmanager
    def _opened(self) -> Iterator[int]:
        folder = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            yield folder
        finally:
            os.close(folder)

    def _seal(self, name: str, content: bytes) -> tuple[bytes, bytes]:
        if self._key is None:
            return _PLAIN, content
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        nonce = self._random(_NONCE_BYTES)
        return _SEALED + nonce, AESGCM(self._key).encrypt(nonce, content, name.encode())

    def _unseal(self, name: str, head: bytes, body: bytes) -> bytes:
        if head == _PLAIN:
            return body
        if head != _SEALED or self._key is None:
            raise KavachError("a quarantined output is encrypted; expected the key it was stored with")
        from cryptography.exceptions import InvalidTag
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        try:
            return AESGCM(self._key).decrypt(body[:_NONCE_BYTES], body[_NONCE_BYTES:], name.encode())
        except InvalidTag:
            raise KavachError("a quarantined output cannot be decrypted: expected the key it was stored with") from None


@contextlib.contextmanager
def _told(deed: str) -> Iterator[None]:
    """Turn the system's errors into one sentence that quotes no content."""
    try:
        yield
    except OSError as error:
        raise KavachError(
            f"the quarantine could not be {deed}: {error.strerror}; nothing half-written was left",
            hint="free space, or make the folder writable for this user alone",
        ) from None


def _digest(head: bytes, body: bytes) -> str:
    whole = hashlib.sha256(head)
    whole.update(body)
    return whole.hexdigest()
