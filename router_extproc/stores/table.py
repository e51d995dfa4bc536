"""Which store a URL's scheme means. A literal table: importing this module opens nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from router_extproc.config.store import Store as StoreSection
from router_extproc.stores.base import Store
from router_extproc.stores.memory import MemoryStore
from router_extproc.stores.redis import RedisStore

STORES: Mapping[str, Callable[[StoreSection], Store]] = {
    "memory": lambda _section: MemoryStore(),
    "redis": RedisStore,
    "rediss": RedisStore,
}


def open_store(section: StoreSection) -> Store | None:
    """The configured store; None without one: every replica then counts and remembers for itself.

    Raises ConfigMistakes when its password cannot be had. Nothing is connected yet.
    """
    if section.url is None:
        return None
    return STORES[section.url.partition(":")[0]](section)
