"""A client that ends its request in trailers over HTTP/2, which httpx cannot."""

from __future__ import annotations

import socket

import httpx
from h2.connection import H2Connection
from h2.events import ResponseReceived

from tests.e2e.stack import Stack


def posted_with_trailers(stack: Stack, body: bytes, **headers: str) -> dict[str, str]:
    """The headers of the answer to a chat request with `headers`; `_` in their names stands for `-`."""
    pseudo = {":method": "POST", ":path": "/v1/chat/completions", ":scheme": "http", ":authority": "x"}
    connection = H2Connection()
    connection.initiate_connection()
    connection.send_headers(1, [*pseudo.items(), *((name.replace("_", "-"), value) for name, value in headers.items())])
    connection.send_data(1, body)
    connection.send_headers(1, [("x-sum", "1")], end_stream=True)
    with socket.create_connection(("127.0.0.1", httpx.URL(stack.url).port or 0), timeout=30) as client:
        while True:
            client.sendall(connection.data_to_send())
            received = client.recv(65536)
            assert received, "the connection ended"
            for event in connection.receive_data(received):
                if isinstance(event, ResponseReceived):
                    return {name.decode(): value.decode() for name, value in event.headers}
