"""TLS from Envoy to the sidecars.

Envoy reads files that its configuration names once. Files that a secret discovery (SDS) file names are watched, so
renewed certificates serve without a restart: with `sds_directory` two such files are written.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

_TYPE = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3."
_CERTIFICATE, _AUTHORITY = "mom-sidecar-client", "mom-sidecar-ca"


@dataclass(frozen=True, slots=True)
class SidecarTls:
    """Paths as Envoy sees them. The sidecar's certificate must be signed by `ca_file` and be for the DNS name `name`.

    `certificate` and `key` are shown to sidecars that ask for one (mTLS).
    """

    ca_file: str
    name: str
    certificate: str | None = None
    key: str | None = None
    sds_directory: str | None = None

    def mistakes(self) -> list[str]:
        """What does not fit together."""
        found = []
        if not self.name:
            found.append("TLS to the sidecar needs the DNS name that its certificate is for")
        if (self.certificate is None) != (self.key is None):
            found.append("TLS to the sidecar: a certificate needs its key, and a key its certificate")
        return found


def transport_socket(tls: SidecarTls) -> dict[str, Any]:
    """The transport socket of the sidecars' cluster."""
    names = {"match_typed_subject_alt_names": [{"san_type": "DNS", "matcher": {"exact": tls.name}}]}
    context: dict[str, Any] = {"alpn_protocols": ["h2"]}
    if tls.sds_directory is None:
        context["validation_context"] = {**_trust(tls), **names}
        if tls.certificate is not None:
            context["tls_certificates"] = [_identity(tls)]
    else:
        context["combined_validation_context"] = {
            "default_validation_context": names,
            "validation_context_sds_secret_config": _from_file(tls.sds_directory, _AUTHORITY),
        }
        if tls.certificate is not None:
            context["tls_certificate_sds_secret_configs"] = [_from_file(tls.sds_directory, _CERTIFICATE)]
    return {
        "name": "envoy.transport_sockets.tls",
        "typed_config": {"@type": _TYPE + "UpstreamTlsContext", "sni": tls.name, "common_tls_context": context},
    }


def write_secrets(tls: SidecarTls, directory: Path) -> None:
    """Writes the SDS files that `transport_socket` refers to. They hold paths, no keys."""
    secrets = {_AUTHORITY: {"validation_context": {**_trust(tls), "watched_directory": _parent(tls.ca_file)}}}
    if tls.certificate is not None:
        secrets[_CERTIFICATE] = {
            "tls_certificate": {**_identity(tls), "watched_directory": _parent(tls.certificate)},
        }
    directory.mkdir(parents=True, exist_ok=True)
    for name, secret in secrets.items():
        resource = {"@type": _TYPE + "Secret", "name": name, **secret}
        (directory / f"{name}.json").write_text(json.dumps({"resources": [resource]}), encoding="utf-8")


def _trust(tls: SidecarTls) -> dict[str, Any]:
    return {"trusted_ca": {"filename": tls.ca_file}}


def _identity(tls: SidecarTls) -> dict[str, Any]:
    return {"certificate_chain": {"filename": tls.certificate}, "private_key": {"filename": tls.key}}


def _parent(path: str) -> dict[str, str]:
    return {"path": str(PurePosixPath(path).parent)}


def _from_file(directory: str, name: str) -> dict[str, Any]:
    path = str(PurePosixPath(directory) / f"{name}.json")
    return {"name": name, "sds_config": {"resource_api_version": "V3", "path_config_source": {"path": path}}}
