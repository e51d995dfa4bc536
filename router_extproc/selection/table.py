"""Selections by their name in router.yaml, and how those that routes name are built."""

from __future__ import annotations

from router_extproc.config.schema import RouterConfig
from router_extproc.errors import ConfigMistakes, Mistake
from router_extproc.registry import Registry
from router_extproc.selection.base import Observations, Selection, SelectionInputs
from router_extproc.selection.best_within import Best, BestWithin
from router_extproc.selection.cheapest import Cheapest
from router_extproc.selection.first import First
from router_extproc.selection.lowest_latency import LowestLatency
from router_extproc.selection.weighted import Weighted

SELECTIONS = Registry(
    "selection",
    {
        "best": Best,
        "best_within": BestWithin,
        "cheapest": Cheapest,
        "first": First,
        "lowest_latency": LowestLatency,
        "weighted": Weighted,
    },
)

WITHOUT_PARAMETERS = ("best", "cheapest", "first", "lowest_latency")
"""Selections that are always there, for preferences."""


def build_selections(config: RouterConfig, observed: Observations) -> tuple[dict[str, Selection], list[Mistake]]:
    """The selections that can be asked for, by their `key`, and what is wrong with the others."""
    inputs = SelectionInputs(config.models, tuple(config.signals), observed)
    built: dict[str, Selection] = {
        name: SELECTIONS.table[name](SELECTIONS.table[name].Params(), inputs) for name in WITHOUT_PARAMETERS
    }
    mistakes: list[Mistake] = []
    for index, route in enumerate(config.routes):
        spec = route.selection
        if spec.key in built:
            continue
        try:
            built[spec.key] = SELECTIONS.build(spec.type, spec.params, ("routes", index, "selection"), inputs)
        except ConfigMistakes as error:
            mistakes += error.mistakes
    return built, mistakes
