"""Selections by their name in router.yaml."""

from __future__ import annotations

from collections.abc import Mapping

from router_extproc.selection.base import SelectionFactory
from router_extproc.selection.cheapest import Cheapest
from router_extproc.selection.first import First

SELECTIONS: Mapping[str, SelectionFactory] = {
    "cheapest": Cheapest,
    "first": First,
}
