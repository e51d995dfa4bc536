"""Type name in router.yaml -> plugin class with typed parameters. Tables are written out, nothing registers itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from router_extproc.errors import ConfigMistakes, Mistake
from router_extproc.validation import Path, did_you_mean, validate


class Registry:
    """The plugins of one kind, by type name.

    A plugin is a class with a pydantic model `Params`; it is called with one of those and with what all plugins of its
    kind get. Its docstring is its text in the configuration reference.
    """

    def __init__(self, kind: str, table: Mapping[str, Any]) -> None:
        """`kind` is what messages call them, for instance "signal type"."""
        self.kind = kind
        self.table = table

    def build(self, name: str, given: Mapping[str, Any], at: Path, *inputs: Any) -> Any:
        """The plugin `name`, called with its typed parameters and `inputs`; `at` is where its specification stands.

        Raises ConfigMistakes with every mistake. What the plugin itself raises has paths below `at`.
        """
        plugin = self.table.get(name)
        if plugin is None:
            message = f"unknown {self.kind} `{name}`{did_you_mean(name, self.table)}"
            raise ConfigMistakes([Mistake((*at, "type"), message)])
        params = validate(plugin.Params, dict(given), at)
        try:
            return plugin(params, *inputs)
        except ConfigMistakes as error:
            raise ConfigMistakes([Mistake(at + mistake.path, mistake.message) for mistake in error.mistakes]) from None
