"""A Kubernetes API server that is just real enough for Helm: discovery, server-side apply, lists, watches, deletes.

Every object of a kind that Kubernetes knows is validated as strictly as a server with `fieldValidation: Strict` would,
and refused with 422. Workloads are ready at once; Jobs complete and Pods succeed unless `fails` says otherwise. Nothing
is scheduled and nothing runs.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self
from urllib.parse import parse_qs, urlsplit

import kubernetes_validate  # type: ignore[import-untyped]

from tests.helm.rendering import Object, check_fields

BUILT_IN = {
    "v1": ("ConfigMap", "Service", "ServiceAccount", "Pod", "Secret", "PersistentVolumeClaim", "Namespace", "Event"),
    "apps/v1": ("Deployment", "ReplicaSet"),
    "batch/v1": ("Job",),
    "policy/v1": ("PodDisruptionBudget",),
    "autoscaling/v2": ("HorizontalPodAutoscaler",),
    "networking.k8s.io/v1": ("NetworkPolicy",),
}
MONITORING: dict[str, tuple[str, ...]] = {
    "monitoring.coreos.com/v1": ("ServiceMonitor", "PodMonitor", "PrometheusRule")
}
_PATH = re.compile(
    r"^/(?:api|apis/(?P<group>[^/]+))/(?P<version>v[^/]+)(?:/namespaces/(?P<namespace>[^/]+))?"
    r"/(?P<resource>[a-z]+)(?:/(?P<name>[^/]+))?$"
)


def plural(kind: str) -> str:
    """The resource's name in paths."""
    name = kind.lower()
    return name[:-1] + "ies" if name.endswith("cy") else name + "s"


class Cluster:
    """Serves on loopback from `with` to its end."""

    def __init__(self, version: str, kinds: dict[str, tuple[str, ...]] | None = None) -> None:
        self.version = version
        self.kinds = {**BUILT_IN, **(kinds or {})}
        self.objects: dict[tuple[str, str, str], Object] = {}
        """By API version, resource and name; there is one namespace."""
        self.log: list[str] = []
        self.fails: set[str] = set()
        """Names of Jobs and Pods that do not succeed."""
        self._changed = threading.Condition()
        self._revision = 1
        outer = self

        class Handler(_Handler):
            cluster = outer

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def names(self, resource: str) -> set[str]:
        """Names of what is there."""
        return {name for _, found, name in self.objects if found == resource}

    def get(self, resource: str, name: str) -> Object:
        """One object."""
        return next(o for (_, found, at), o in self.objects.items() if (found, at) == (resource, name))

    def apply(self, key: tuple[str, str, str], thing: Object) -> Object:
        """Creates or replaces. Raises kubernetes_validate.ValidationError."""
        if key[0] in BUILT_IN:
            check_fields(thing, self.version)
        with self._changed:
            self._revision += 1
            old = self.objects.get(key)
            thing["metadata"] |= {
                "uid": old["metadata"]["uid"] if old else f"uid-{self._revision}",
                "resourceVersion": str(self._revision),
                "generation": (old["metadata"]["generation"] if old else 0) + 1,
                "creationTimestamp": "2026-01-01T00:00:00Z",
            }
            thing |= self._status(thing)
            self.objects[key] = thing
            self._changed.notify_all()
        self.log.append(f"{'replace' if old else 'create'} {thing['kind']}/{key[2]}")
        return thing

    def delete(self, key: tuple[str, str, str]) -> Object | None:
        """Removes; None when it is not there."""
        with self._changed:
            self._revision += 1
            gone = self.objects.pop(key, None)
            self._changed.notify_all()
        if gone is not None:
            self.log.append(f"delete {gone['kind']}/{key[2]}")
        return gone

    def list(self, api: str, resource: str, name: str | None) -> list[Object]:
        """What is there, or the one of a name."""
        return [o for (a, r, n), o in self.objects.items() if (a, r) == (api, resource) and name in (None, n)]

    def events(self, api: str, resource: str, name: str | None, stop: threading.Event) -> Iterator[Object]:
        """Changes from now on, for a watch."""
        known = {o["metadata"]["name"]: o for o in self.list(api, resource, name)}
        while not stop.is_set():
            with self._changed:
                self._changed.wait(0.02)
            now = {o["metadata"]["name"]: o for o in self.list(api, resource, name)}
            for at, thing in now.items():
                if at not in known:
                    yield {"type": "ADDED", "object": thing}
                elif known[at]["metadata"]["resourceVersion"] != thing["metadata"]["resourceVersion"]:
                    yield {"type": "MODIFIED", "object": thing}
            for at in known.keys() - now.keys():
                yield {"type": "DELETED", "object": known[at]}
            known = now

    @property
    def revision(self) -> str:
        """The newest resourceVersion."""
        return str(self._revision)

    def _status(self, thing: Object) -> Object:
        generation, failed = thing["metadata"]["generation"], thing["metadata"]["name"] in self.fails
        match thing["kind"]:
            case "Deployment":
                count = thing["spec"].get("replicas", 1)
                condition = {"type": "Available", "status": "True", "reason": "MinimumReplicasAvailable"}
                progress = {"type": "Progressing", "status": "True", "reason": "NewReplicaSetAvailable"}
                counts = dict.fromkeys(("replicas", "updatedReplicas", "readyReplicas", "availableReplicas"), count)
                return {"status": {"observedGeneration": generation, "conditions": [condition, progress], **counts}}
            case "Job":
                condition = {"type": "Failed" if failed else "Complete", "status": "True", "reason": "Simulated"}
                return {"status": {"conditions": [condition], "failed" if failed else "succeeded": 1}}
            case "Pod":
                return {"status": {"phase": "Failed" if failed else "Succeeded"}}
            case "PersistentVolumeClaim":
                return {"status": {"phase": "Bound"}}
            case "HorizontalPodAutoscaler" | "PodDisruptionBudget":
                return {"status": {"observedGeneration": generation, "conditions": []}}
        return {}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    cluster: Cluster

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        query = parse_qs(url.query)
        known = self._discovery(url.path)
        if known is not None:
            return self._answer(200, known)
        match = _PATH.match(url.path)
        if match is None:
            return self._refuse(404, "NotFound", url.path)
        api, resource, name = self._key(match)
        if query.get("watch") == ["true"] or query.get("watch") == ["1"]:
            fields = re.search(r"metadata.name=([^,]+)", query.get("fieldSelector", [""])[0])
            return self._watch(api, resource, fields[1] if fields else None, "sendInitialEvents" in query)
        if name:
            found = self.cluster.list(api, resource, name)
            return self._answer(200, found[0]) if found else self._refuse(404, "NotFound", name)
        fields = re.search(r"metadata.name=([^,]+)", query.get("fieldSelector", [""])[0])
        return self._answer(
            200,
            {
                "apiVersion": api,
                "kind": "List",
                "metadata": {"resourceVersion": self.cluster.revision},
                "items": self.cluster.list(api, resource, fields[1] if fields else None),
            },
        )

    def do_POST(self) -> None:
        self._write()

    def do_PUT(self) -> None:
        self._write()

    def do_PATCH(self) -> None:
        self._write()

    def do_DELETE(self) -> None:
        match = _PATH.match(urlsplit(self.path).path)
        self._body()
        gone = self.cluster.delete(self._key(match)) if match else None
        if gone is None:
            return self._refuse(404, "NotFound", self.path)
        return self._answer(200, {"apiVersion": "v1", "kind": "Status", "status": "Success"})

    def _write(self) -> None:
        match = _PATH.match(urlsplit(self.path).path)
        assert match is not None, self.path
        thing = json.loads(self._body())
        api, resource, name = self._key(match)
        thing.setdefault("apiVersion", api)
        try:
            written = self.cluster.apply((api, resource, name or thing["metadata"]["name"]), thing)
        except kubernetes_validate.ValidationError as error:
            return self._refuse(422, "Invalid", str(error.message))
        return self._answer(200, written)

    def _watch(self, api: str, resource: str, name: str | None, initial: bool) -> None:
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        stop = threading.Event()
        try:
            if initial:
                for thing in self.cluster.list(api, resource, name):
                    self._event({"type": "ADDED", "object": thing})
                kind = next(k for k in self.cluster.kinds[api] if plural(k) == resource)
                end = {"k8s.io/initial-events-end": "true"}
                bookmark = {"resourceVersion": self.cluster.revision, "annotations": end}
                self._event({"type": "BOOKMARK", "object": {"apiVersion": api, "kind": kind, "metadata": bookmark}})
            for event in self.cluster.events(api, resource, name, stop):
                self._event(event)
        except (BrokenPipeError, ConnectionResetError):
            stop.set()
            self.close_connection = True

    def _event(self, event: Object) -> None:
        data = json.dumps(event).encode() + b"\n"
        self.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
        self.wfile.flush()

    def _discovery(self, path: str) -> Object | None:
        kinds = self.cluster.kinds
        groups = [api.split("/") for api in kinds if "/" in api]
        match path.strip("/").split("/"):
            case ["version"]:
                major, minor = self.cluster.version.split(".")
                return {"major": major, "minor": minor, "gitVersion": f"v{self.cluster.version}.0"}
            case ["api"]:
                return {"kind": "APIVersions", "versions": ["v1"]}
            case ["apis"]:
                listed = [
                    {
                        "name": group,
                        "versions": [{"groupVersion": f"{group}/{version}", "version": version}],
                        "preferredVersion": {"groupVersion": f"{group}/{version}", "version": version},
                    }
                    for group, version in groups
                ]
                return {"kind": "APIGroupList", "apiVersion": "v1", "groups": listed}
            case ["api", "v1"]:
                return _resources("v1", kinds["v1"])
            case ["apis", group, version] if f"{group}/{version}" in kinds:
                return _resources(f"{group}/{version}", kinds[f"{group}/{version}"])
            case ["openapi", "v3"]:
                paths = ["api/v1", *(f"apis/{group}/{version}" for group, version in groups)]
                return {"paths": {at: {"serverRelativeURL": f"/openapi/v3/{at}"} for at in paths}}
            case ["openapi", "v3", *at]:
                api = "/".join(at[1:])
                return _open_api(api, kinds[api], "/".join(at))
        return None

    def _key(self, match: re.Match[str]) -> tuple[str, str, str]:
        api = f"{match['group']}/{match['version']}" if match["group"] else match["version"]
        return api, match["resource"], match["name"] or ""

    def _body(self) -> bytes:
        return self.rfile.read(int(self.headers.get("content-length", 0)))

    def _refuse(self, code: int, reason: str, message: str) -> None:
        status = {"apiVersion": "v1", "kind": "Status", "status": "Failure", "code": code}
        self._answer(code, {**status, "reason": reason, "message": message})

    def _answer(self, code: int, document: Object) -> None:
        data = json.dumps(document).encode()
        self.send_response(code)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


def _resources(api: str, kinds: tuple[str, ...]) -> Object:
    verbs = ["create", "delete", "get", "list", "patch", "update", "watch"]
    return {
        "kind": "APIResourceList",
        "groupVersion": api,
        "resources": [
            {"name": plural(k), "singularName": k.lower(), "namespaced": k != "Namespace", "kind": k, "verbs": verbs}
            for k in kinds
        ],
    }


def _open_api(api: str, kinds: tuple[str, ...], at: str) -> Object:
    group, _, version = api.rpartition("/")
    paths = {}
    for kind in kinds:
        patch = {
            "parameters": [{"name": "fieldValidation", "in": "query", "schema": {"type": "string"}}],
            "x-kubernetes-group-version-kind": {"group": group, "version": version, "kind": kind},
            "x-kubernetes-action": "patch",
        }
        paths[f"/{at}/namespaces/{{namespace}}/{plural(kind)}/{{name}}"] = {"patch": patch}
    return {"openapi": "3.0.0", "info": {"title": "Kubernetes", "version": "v1"}, "paths": paths}
