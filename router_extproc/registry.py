"""Type name in router.yaml -> plugin class with typed parameters. Tables are written out, nothing registers itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Generic, Protocol, TypeVar

from pydantic import BaseModel

from router_extproc.errors import ConfigMistakes, Mistake
from router_extproc.validation import Path, did_you_mean, validate


class Plugin(Protocol):
    """A class that can be named in router.yaml. Its docstring's first paragraph is its text in the reference."""

    Params: type[BaseModel]


P = TypeVar("P", bound=Plugin)


class Registry(Generic[P]):
    """The plugins of one kind, by type name."""

    def __init__(self, kind: str, table: Mapping[str, type[P]]) -> None:
        """`kind` is what messages call them, for instance "signal type"."""
        self.kind = kind
        self.table = table

    def look_up(self, name: str, at: Path) -> type[P]:
        """The plugin of that name. Raises ConfigMistakes."""
        plugin = self.table.get(name)
        if plugin is None:
            raise ConfigMistakes([Mistake(at, f"unknown {self.kind} `{name}`{did_you_mean(name, self.table)}")])
        return plugin

    def params(self, name: str, given: Mapping[str, Any], at: Path) -> BaseModel:
        """The typed parameters of plugin `name`. Raises ConfigMistakes with every mistake, below the path `at`."""
        return validate(self.look_up(name, at).Params, dict(given), at)
