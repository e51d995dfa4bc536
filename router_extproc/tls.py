"""TLS on the port that gateways call: certificates from files, read again whenever a gateway connects.

A renewed certificate (cert-manager writes a Secret, the kubelet swaps the mounted directory) serves from the next
connection on, without a restart. Connections that are open keep what they began with.
"""

from __future__ import annotations

import hashlib
import logging
import ssl
from dataclasses import dataclass
from pathlib import Path

import grpc

from router_extproc.errors import ConfigError

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """PEM files. With `client_ca`, whoever connects must show a certificate that this authority signed (mTLS)."""

    certificate: Path
    key: Path
    client_ca: Path | None = None


def server_credentials(files: TlsFiles) -> grpc.ServerCredentials:
    """Credentials that follow the files. Raises ConfigError when they cannot be used now."""
    source = _Source(files)
    try:
        first = source.read()
    except (OSError, ssl.SSLError) as error:
        raise ConfigError([f"TLS: {error}"]) from error
    # The stub forgets that the callback may answer None: no change.
    return grpc.dynamic_ssl_server_credentials(first, source.renewed, files.client_ca is not None)  # type: ignore[arg-type]


class _Source:
    """Files that may be swapped at any time, between two of them too."""

    def __init__(self, files: TlsFiles) -> None:
        self._files = files
        self._serving = ""
        self._refused = ""

    def read(self) -> grpc.ServerCertificateConfiguration:
        """What the files hold. Raises OSError or ssl.SSLError when they are unreadable or do not fit together."""
        certificate, key, authority = contents = self._contents()
        # gRPC would take a key of another certificate, and fail every handshake with it.
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self._files.certificate, self._files.key)
        if self._files.client_ca is not None:
            context.load_verify_locations(self._files.client_ca)
        if self._contents() != contents:
            raise OSError(f"{self._files.certificate}: changed while it was read")
        self._serving = _digest(contents)
        return grpc.ssl_server_certificate_configuration([(key, certificate)], authority)

    def renewed(self) -> grpc.ServerCertificateConfiguration | None:
        """Called on a thread of gRPC's before each handshake; None keeps what serves. Reads some kilobytes."""
        found = ""
        try:
            found = _digest(self._contents())
            if found == self._serving:
                return None
            new = self.read()
        except (OSError, ssl.SSLError) as error:
            if found != self._refused:  # once per content, not once per connection
                log.error("refused the new certificate, the last good one serves on: %s", error)
            self._refused = found
            return None
        log.info("a new certificate serves")
        return new

    def _contents(self) -> tuple[bytes, bytes, bytes | None]:
        authority = self._files.client_ca
        return (
            self._files.certificate.read_bytes(),
            self._files.key.read_bytes(),
            authority.read_bytes() if authority is not None else None,
        )


def _digest(contents: tuple[bytes, bytes, bytes | None]) -> str:
    return hashlib.sha256(b"\0".join(part or b"" for part in contents)).hexdigest()
