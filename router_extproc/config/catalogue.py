"""What the models of the catalogue need to become Envoy's clusters."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from urllib.parse import urlsplit

from router_extproc.config.model import Model
from router_extproc.config.providers import API_PATHS, cluster_of, endpoint_of
from router_extproc.errors import Mistake

RESERVED_CLUSTERS = ("mom-passthrough", "mom-sidecar")

_TAILS = sorted((path.removeprefix("/v1") for path in API_PATHS.values()), key=len, reverse=True)


def check_catalogue(models: Mapping[str, Model]) -> list[Mistake]:
    """Clusters that are shared or reserved, and urls without a usable host and port."""
    mistakes: list[Mistake] = []
    clusters: dict[str, str] = {}
    for name, model in models.items():
        cluster = cluster_of(name, model)
        at = ("models", name, "cluster") if model.cluster is not None else ("models", name)
        if cluster in clusters:
            # Envoy puts name, path, host and key of the model per cluster: two models in one would mix them up.
            mistakes.append(Mistake(at, f"the cluster `{cluster}` is already that of `{clusters[cluster]}`"))
        if cluster in RESERVED_CLUSTERS:
            mistakes.append(Mistake(at, f"`{cluster}` is a cluster of the router's own: give another `cluster`"))
        clusters.setdefault(cluster, name)
        mistakes += [Mistake(("models", name, "url"), message) for message in _unusable(model)]
    return mistakes


def _unusable(model: Model) -> Iterator[str]:
    try:
        endpoint_of(model)
    except ValueError as error:
        yield str(error)
        return
    path = urlsplit(model.url).path.rstrip("/")
    tail = next((tail for tail in _TAILS if path.endswith(tail)), None)
    if tail is not None:
        yield f"ends in the path of an API, which is added to it: write `{model.url.rstrip('/').removesuffix(tail)}`"
