"""A configuration compiled: everything a request needs, immutable, swapped whole on reload."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from router_extproc.budgets import check_budgets
from router_extproc.config.loader import LoadedConfig
from router_extproc.config.schema import RouterConfig
from router_extproc.errors import ConfigMistakes, Mistake
from router_extproc.guards import Guards
from router_extproc.inference.base import Classifier
from router_extproc.ledger import check_ledger
from router_extproc.policy import Policy
from router_extproc.preferences import Preferences
from router_extproc.router import Router
from router_extproc.selection.observed import Observed
from router_extproc.selection.quality import check_likes
from router_extproc.selection.table import build_selections
from router_extproc.sessions import SessionKeys
from router_extproc.signals.base import known_labels
from router_extproc.signals.table import build_signals
from router_extproc.stores.affinity import Affinity

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Runtime:
    """One generation. A stream keeps the one that it began with."""

    generation: int
    digest: str
    source: Path
    config: RouterConfig
    policy: Policy
    guards: Guards
    preferences: Preferences
    router: Router
    clusters: Mapping[str, str]
    upstream_names: Mapping[str, str]
    models_by_cluster: Mapping[str, str]
    model_names: tuple[str, ...]


def compile_runtime(
    loaded: LoadedConfig,
    heads: Mapping[str, Mapping[str, tuple[str, ...]]],
    classifiers: Mapping[str, Classifier],
    generation: int = 1,
    observed: Observed | None = None,
    keys: SessionKeys | None = None,
    affinity: Affinity | None = None,
) -> Runtime:
    """Checks names across sections and builds the plugins. `heads` has the labels per classifier and head.

    `observed` is what recent outcomes tell of the models, `keys` and `affinity` are of conversations: they outlive
    generations.

    Raises ConfigError with every mistake. CPU work of some milliseconds: call it off the event loop.
    """
    config = loaded.config
    observed = observed or Observed()
    signals, mistakes = build_signals(config.signals, heads)
    selections, wrong = build_selections(config, observed)
    mistakes += wrong
    mistakes += check_likes(config, known_labels(config.signals, signals))
    mistakes += (*check_budgets(config), *check_ledger(config))
    policy = _checked(mistakes, lambda: Policy.compile(config, signals))
    guards = _checked(mistakes, lambda: Guards.compile(config, signals))
    preferences = _checked(mistakes, lambda: Preferences(config))
    if policy is None or guards is None or preferences is None or mistakes:
        raise loaded.error(mistakes)
    clusters = {name: model.cluster or name for name, model in config.models.items()}
    return Runtime(
        generation=generation,
        digest=loaded.digest,
        source=loaded.source,
        config=config,
        policy=policy,
        guards=guards,
        preferences=preferences,
        router=Router(
            config, policy, guards, preferences, signals, selections, classifiers, observed.picked, keys, affinity
        ),
        clusters=clusters,
        upstream_names={name: model.upstream_model or name for name, model in config.models.items()},
        models_by_cluster={cluster: name for name, cluster in clusters.items()},
        model_names=(*config.virtual_models, *config.models),
    )


def _checked(mistakes: list[Mistake], build: Callable[[], T]) -> T | None:
    """What `build` gives; None, with its mistakes noted, when it cannot."""
    try:
        return build()
    except ConfigMistakes as error:
        mistakes += error.mistakes
        return None


class Runtimes:
    """Holds the generation that new streams begin with. Read and swapped on the event loop."""

    def __init__(self, first: Runtime) -> None:
        self._current = first
        self._rejected: dict[str, str] = {}
        self.envoy: str | None = None
        """What Envoy has to be told of the changes since this process started; None: nothing."""

    @property
    def current(self) -> Runtime:
        """The generation that serves now."""
        return self._current

    @property
    def rejected(self) -> str | None:
        """Why the newest of what is watched was refused; None while all of it serves."""
        return "; ".join(self._rejected.values()) or None

    def swap(self, runtime: Runtime) -> None:
        """From the next stream on, `runtime` serves."""
        self._current = runtime

    def accept(self, what: str) -> None:
        """The newest version of `what` (the configuration, the classifier) serves."""
        self._rejected.pop(what, None)

    def reject(self, what: str, why: str) -> None:
        """The newest version of `what` cannot be used; the current generation serves on."""
        self._rejected[what] = why
