"""How is a Redis reached? A client for threads, or for an event loop.

Rules:
- It has not connected yet, and tries no more than it is told: whoever uses it can do without.
- A password in a URL gets into no message, nor a piece of one that was not written as a URL wants it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from paceline.config.setting import without_password
from paceline.core.errors import RuntimeUnavailable

_SCHEMES: Final = ("redis://", "rediss://", "unix://")
_CONNECTIONS: Final = 8


def for_threads(url: str, who: str, timeout_s: float) -> Any:
    """A client that blocks, for any number of threads.

    Args:
        who: named in messages.

    Raises:
        RuntimeUnavailable: the package is not installed.
        ValueError: the URL is none of Redis.
    """
    with _explained(url, who):
        from redis import Redis
        from redis.backoff import NoBackoff
        from redis.retry import Retry

        times: dict[str, Any] = {"socket_timeout": timeout_s, "socket_connect_timeout": timeout_s}
        # Once more: a connection that Redis has closed since is not yet a failure.
        return Redis.from_url(url, retry=Retry(NoBackoff(), 1), **times)


def for_loop(url: str, who: str, timeout_s: float) -> Any:
    """A client for an event loop, as `for_threads`; calls of it that take too long are the caller's to end."""
    with _explained(url, who):
        from redis.asyncio import BlockingConnectionPool, Redis
        from redis.asyncio.retry import Retry
        from redis.backoff import NoBackoff

        times: dict[str, Any] = {"timeout": timeout_s, "socket_connect_timeout": timeout_s}
        pool = BlockingConnectionPool.from_url(url, max_connections=_CONNECTIONS, retry=Retry(NoBackoff(), 0), **times)
        return Redis(connection_pool=pool)


@contextmanager
def _explained(url: str, who: str) -> Iterator[None]:
    if not url.startswith(_SCHEMES):
        raise ValueError(f"{who}: the URL of a Redis begins with one of the schemes {', '.join(_SCHEMES)}")
    try:
        yield
    except ImportError:
        text = f"{who}: {_shown(url)} needs the package redis"
        raise RuntimeUnavailable(text, hint="pip install 'paceline[redis]'") from None
    except ValueError:  # its words may hold a part of the password
        text = f"{who}: no URL of a Redis: {_shown(url)}; special characters in a password are written as %2F, %23, %40"
        raise ValueError(text) from None


def _shown(url: str) -> str:
    return without_password("".join(url.split()))
