"""Redis or Valkey. All keys begin with `{prefix}` and thus share a slot, so that a proxy before a cluster will do too.

A server that does not answer costs nothing but a try now and then: for a moment after each failure every call fails at
once. The password is read anew for each connection, so that a mounted secret can change.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import redis.asyncio as client
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.credentials import CredentialProvider
from redis.exceptions import ConnectionError as NoConnection
from redis.exceptions import RedisError
from redis.exceptions import TimeoutError as NoAnswer

from router_extproc.config.store import Store as StoreSection
from router_extproc.errors import ConfigMistakes, Mistake
from router_extproc.stores.base import Added, Change, StoreError

log = logging.getLogger(__name__)

REST_SECONDS = (0.1, 0.2, 0.5, 1.0, 2.0)
"""After the first, second, ... failure in a row nothing is tried for so long."""
MAX_CONNECTIONS = 64
WRITER_SECONDS = 40 * 86_400
"""How long a writer's last number is kept: longer than any window of a budget."""

# One step for the server: nobody sees half a batch, and a batch that comes twice is counted once. Numbers go in and out
# as text, for Lua's own are exact up to 2^53 only. The writer's number comes first: a server without memory refuses the
# first write of a script alone, and not those after it.
_ADD = """
local known = redis.call('GET', KEYS[1])
if not known or tonumber(known) < tonumber(ARGV[1]) then
  redis.call('SET', KEYS[1], ARGV[1], 'EX', ARGV[2])
  for i = 2, #KEYS do
    if ARGV[2 * i - 1] ~= '0' then
      redis.pcall('INCRBY', KEYS[i], ARGV[2 * i - 1])
      redis.pcall('EXPIRE', KEYS[i], ARGV[2 * i])
    end
  end
end
local found = {known and '1' or '0'}
for i = 2, #KEYS do
  found[i] = redis.call('GET', KEYS[i]) or '0'
end
return found
"""


class _Password(CredentialProvider):
    """User name and password as they are now."""

    def __init__(self, section: StoreSection) -> None:
        self._section = section

    def get_credentials(self) -> tuple[str] | tuple[str, str]:
        """What the client sends when it connects. Raises OSError when the file has gone: no connection then."""
        password = password_of(self._section)
        return (self._section.username, password) if self._section.username else (password,)


def password_of(section: StoreSection) -> str:
    """The password; empty without one. Raises OSError, and ConfigMistakes when its variable is not set."""
    if section.password_file is not None:
        return Path(section.password_file).read_text(encoding="utf-8").strip()
    if section.password_env is None:
        return ""
    password = os.environ.get(section.password_env, "")
    if not password:
        raise ConfigMistakes([Mistake(("store", "password_env"), f"{section.password_env} is not set")])
    return password


class RedisStore:
    """A `base.Store` on a server. Connects when first used, and again when it has to."""

    def __init__(self, section: StoreSection, clock: Callable[[], float] = time.monotonic) -> None:
        """Raises ConfigMistakes when the password's variable is not set or its file cannot be read."""
        try:
            secret = _Password(section) if password_of(section) else None
        except OSError as error:
            raise ConfigMistakes([Mistake(("store", "password_file"), f"cannot be read: {error.strerror}")]) from None
        url = urlsplit(section.url or "")
        seconds = section.timeout_ms / 1000
        self._client = client.Redis(
            host=url.hostname or "localhost",
            port=url.port or 6379,
            db=int(url.path.strip("/") or 0),
            ssl=url.scheme == "rediss",
            ssl_ca_certs=section.ca_file,
            credential_provider=secret,
            socket_timeout=seconds,
            socket_connect_timeout=seconds,
            max_connections=MAX_CONNECTIONS,
            retry=Retry(NoBackoff(), 0),
            protocol=2,
            client_name="router-extproc",
        )
        self._add = self._client.register_script(_ADD)
        self._prefix = "{" + section.prefix + "}:"
        self._clock = clock
        self._failures, self._rests_until = 0, 0.0
        self._reason, self._why = "down", ""

    async def add(self, writer: str, number: int, changes: Sequence[Change]) -> Added:
        """See `base.Store.add`."""
        keys = [f"{self._prefix}w:{writer}", *(self._prefix + change.key for change in changes)]
        arguments = [str(number), str(WRITER_SECONDS)]
        for change in changes:
            arguments += (str(change.amount), str(change.seconds))
        known, *totals = await self._asked(lambda: self._add(keys=keys, args=arguments))
        return Added(tuple(int(total) for total in totals), known == b"1")

    async def get(self, keys: Sequence[str]) -> list[bytes | None]:
        """See `base.Store.get`."""
        found: list[Any] = await self._asked(lambda: self._client.mget([self._prefix + key for key in keys]))
        return found

    async def put(self, values: Mapping[str, bytes], seconds: int) -> None:
        """See `base.Store.put`."""
        pipeline = self._client.pipeline(transaction=False)
        for key, value in values.items():
            pipeline.set(self._prefix + key, value, ex=seconds)
        await self._asked(pipeline.execute)

    async def aclose(self) -> None:
        """See `base.Store.aclose`."""
        await self._client.aclose()

    async def _asked(self, ask: Callable[[], Any]) -> Any:
        if self._clock() < self._rests_until:
            raise StoreError(self._reason, self._why)
        try:
            found = await ask()
        except (NoAnswer, TimeoutError) as error:
            raise self._failed("slow", error) from None
        except (NoConnection, OSError, ConfigMistakes) as error:
            raise self._failed("down", error) from None
        except (RedisError, ValueError) as error:
            # A server that has become a replica refuses to write for as long as we stay with it; the one that took its
            # address over is found by connecting again.
            await self._client.connection_pool.disconnect(inuse_connections=False)
            raise self._failed("refused", error) from None
        if self._failures:
            log.info("the store answers again")
            self._failures = 0
        return found

    def _failed(self, reason: str, error: Exception) -> StoreError:
        now = self._clock()
        self._reason, self._why = reason, str(error) or type(error).__name__
        if not self._failures:
            log.warning("the store gives no answer, everything goes on without it: %s", self._why)
        if now >= self._rests_until:  # calls that failed together are one failure
            self._rests_until = now + REST_SECONDS[min(self._failures, len(REST_SECONDS) - 1)]
            self._failures += 1
        return StoreError(reason, self._why)
