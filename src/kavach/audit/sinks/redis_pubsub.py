"""Events -> channels of a Redis server, one channel a topic.

Guarantees: a server that is down or slow is waited for at most `timeout_s`, then left alone for `retry_s`; what comes
meanwhile is dropped and counted. Does not: keep events for a subscriber that is not there (PUBLISH does not), or print
the URL, which may hold a password. Needs the extra `redis`. May be called by: users, kavach.cli.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Self

from kavach.errors import ConfigError, UnsupportedError

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from kavach.audit.events.event import Event

__all__ = ["RedisSink"]


class RedisSink:
    """Publishes each event it is called with as JSON to the channel `<prefix><topic>`.

    Subscribers use `PSUBSCRIBE kavach/sandbox/*/scan/*`.

    Args:
        url: `redis://`, `rediss://` or `unix://`, with password where the server asks for one.
        prefix: before the topic.
        timeout_s: for connecting and for each command.
        retry_s: how long a server that failed is left alone.
        clock: monotonic seconds.

    Raises:
        ConfigError: the URL is none.
        UnsupportedError: the extra `redis` is not installed.
    """

    def __init__(
        self,
        url: str,
        *,
        prefix: str = "kavach/",
        timeout_s: float = 0.5,
        retry_s: float = 1.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        try:
            import redis
            from redis.backoff import NoBackoff
            from redis.retry import Retry
        except ImportError as error:
            raise UnsupportedError(
                "a Redis sink needs the package redis",
                control="events",
                needed="redis",
                found="not installed",
                hint="pip install 'kavach-sandbox[redis]'",
            ) from error
        try:
            self._client = redis.Redis.from_url(
                url, socket_timeout=timeout_s, socket_connect_timeout=timeout_s, retry=Retry(NoBackoff(), 0)
            )
        except (ValueError, TypeError, AttributeError):
            # SECURITY: the URL may hold a password, and the library's own words quote it: neither is passed on.
            raise ConfigError(
                "url: expected redis://, rediss:// or unix://, with a whole number as port", key="url"
            ) from None
        self._failures = (redis.RedisError, OSError)
        self._prefix = prefix
        self._retry_s = retry_s
        self._clock = clock
        self._rests_until = float("-inf")
        #: How many events the server did not take.
        self.dropped: int = 0

    def __call__(self, event: Event) -> None:
        """Publish one event, unless the server failed a moment ago."""
        if self._clock() < self._rests_until:
            self.dropped += 1
            return
        try:
            self._client.publish(self._prefix + event.topic, event.to_json())
        except self._failures:
            self.dropped += 1
            self._rests_until = self._clock() + self._retry_s

    def close(self) -> None:
        """Close the connections; idempotent."""
        self._client.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<RedisSink {self._prefix}, {self.dropped} dropped>"
