"""OpenAI Embeddings."""

from __future__ import annotations

from router_extproc.apis.completions import TextReader
from router_extproc.apis.error_body import openai_error
from router_extproc.config.model import Api


class EmbeddingsReader(TextReader):
    """Reads `input`."""

    api = Api.EMBEDDINGS
    text_field = "input"
    input_fields = frozenset({"input"})


class Embeddings:
    """`POST /v1/embeddings`."""

    name = Api.EMBEDDINGS.value
    path = "/v1/embeddings"

    def reader(self) -> EmbeddingsReader:
        """A reader for one body."""
        return EmbeddingsReader()

    def error(self, status: int, code: str, message: str, param: str | None, request_id: str) -> bytes:
        """OpenAI's shape; it has no place for the request id."""
        return openai_error(status, code, message, param)
