"""A connection to the sidecar, as a gateway would make it."""

from pathlib import Path

import grpc


def connect(target: str, secret: str = "", name: str = "") -> grpc.Channel:
    """With a mounted Secret by TLS: verifies the server as `name`, and shows the client's certificate if it has one."""
    if not secret:
        return grpc.insecure_channel(target)
    mine = [Path(secret, part) for part in ("tls.key", "tls.crt")]
    key, certificate = (path.read_bytes() if path.exists() else None for path in mine)
    credentials = grpc.ssl_channel_credentials(Path(secret, "ca.crt").read_bytes(), key, certificate)
    return grpc.secure_channel(target, credentials, [("grpc.ssl_target_name_override", name)])
