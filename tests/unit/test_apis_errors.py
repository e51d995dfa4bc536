"""Errors and model lists as the real SDKs read them, and what the real SDKs send."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import anthropic
import httpx2
import openai
import pytest
from pydantic import BaseModel

from router_extproc.apis.models_list import answer_models
from router_extproc.apis.table import APIS, for_path
from router_extproc.domain import LlmRequest

NAMES = ("auto", "cheap-1", "org/large 2")


class Server:
    """Answers an SDK in its process: with an error where one is set, else keeps the request and answers {}."""

    def __init__(self, status: int = 200, code: str = "") -> None:
        self.status = status
        self.code = code
        self.requests: list[LlmRequest] = []

    def __call__(self, request: httpx2.Request) -> httpx2.Response:
        path = request.url.raw_path.decode()
        models = answer_models(request.method, path, dict(request.headers.items()), NAMES)
        if models is not None:
            return httpx2.Response(models.status, content=models.body, headers={"content-type": "application/json"})
        api = for_path(path)
        assert api is not None
        headers = {"content-type": "application/json", "request-id": "req_1", "x-request-id": "req_1"}
        if self.status != 200:
            body = api.error(self.status, self.code, 'That\'s "it".', "model", "req_1")
            return httpx2.Response(self.status, content=body, headers=headers)
        reader = api.reader()
        reader.feed(request.read())
        self.requests.append(reader.finish())
        return httpx2.Response(200, content=b"{}", headers=headers)

    def openai(self) -> openai.OpenAI:
        client = httpx2.Client(transport=httpx2.MockTransport(self))
        return openai.OpenAI(base_url="http://router/v1", api_key="k", max_retries=0, http_client=client)

    def anthropic(self) -> anthropic.Anthropic:
        client = httpx2.Client(transport=httpx2.MockTransport(self))
        return anthropic.Anthropic(base_url="http://router", api_key="k", max_retries=0, http_client=client)


OPENAI_CALLS: dict[str, Callable[[openai.OpenAI], object]] = {
    "chat": lambda client: client.chat.completions.create(model="m", messages=[{"role": "user", "content": "Hi"}]),
    "completions": lambda client: client.completions.create(model="m", prompt="Hi"),
    "responses": lambda client: client.responses.create(model="m", input="Hi"),
    "embeddings": lambda client: client.embeddings.create(model="m", input="Hi"),
}


@pytest.mark.parametrize("call", OPENAI_CALLS)
@pytest.mark.parametrize(
    ("status", "error", "kind"),
    [
        (400, openai.BadRequestError, "invalid_request_error"),
        (401, openai.AuthenticationError, "authentication_error"),
        (403, openai.PermissionDeniedError, "invalid_request_error"),
        (404, openai.NotFoundError, "invalid_request_error"),
        (413, openai.APIStatusError, "invalid_request_error"),
        (429, openai.RateLimitError, "rate_limit_error"),
        (500, openai.InternalServerError, "server_error"),
        (503, openai.InternalServerError, "server_error"),
    ],
)
def test_openai_reads_errors(call: str, status: int, error: type[openai.APIStatusError], kind: str) -> None:
    with pytest.raises(error) as caught:
        OPENAI_CALLS[call](Server(status, "some_code").openai())
    found = caught.value
    assert (found.status_code, found.type, found.code, found.param) == (status, kind, "some_code", "model")
    assert found.body == {"message": 'That\'s "it".', "type": kind, "param": "model", "code": "some_code"}


@pytest.mark.parametrize(
    ("status", "error", "kind"),
    [
        (400, anthropic.BadRequestError, "invalid_request_error"),
        (401, anthropic.AuthenticationError, "authentication_error"),
        (403, anthropic.PermissionDeniedError, "permission_error"),
        (404, anthropic.NotFoundError, "not_found_error"),
        (413, anthropic.APIStatusError, "request_too_large"),
        (429, anthropic.RateLimitError, "rate_limit_error"),
        (500, anthropic.InternalServerError, "api_error"),
        (503, anthropic.InternalServerError, "overloaded_error"),
        (529, anthropic.InternalServerError, "overloaded_error"),
    ],
)
def test_anthropic_reads_errors(status: int, error: type[anthropic.APIStatusError], kind: str) -> None:
    with pytest.raises(error) as caught:
        Server(status).anthropic().messages.create(
            model="m", max_tokens=5, messages=[{"role": "user", "content": "Hi"}]
        )
    found = caught.value
    assert (found.status_code, found.request_id) == (status, "req_1")
    assert found.body == {
        "type": "error",
        "error": {"type": kind, "message": 'That\'s "it".'},
        "request_id": "req_1",
    }


@pytest.mark.parametrize("path", APIS)
def test_error_bodies_survive_any_text(path: str) -> None:
    body = json.loads(APIS[path].error(400, "c", "\ud83d \u2028 \x00 </script>", None, "r"))
    assert body["error"]["message"] == "\ud83d \u2028 \x00 </script>"
    if path != "/v1/messages":
        assert set(body["error"]) == {"message", "type", "param", "code"}
        assert body["error"]["param"] is None


class Answer(BaseModel):
    x: int


def test_reads_what_openai_sends() -> None:
    server = Server()
    client = server.openai()
    message: Any = {
        "role": "user",
        "content": [
            {"type": "text", "text": "\u00e9t\u00e9 \u2028 x"},
            {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}},
        ],
    }
    tools: Any = [{"type": "function", "function": {"name": "f", "parameters": {}}}]
    client.chat.completions.create(model="auto", messages=[message], tools=tools, max_tokens=7, stream=True)
    client.chat.completions.with_raw_response.parse(
        model="auto", messages=[{"role": "user", "content": "Hi"}], response_format=Answer
    )
    client.responses.with_raw_response.create(
        model="auto",
        input=[{"role": "user", "content": [{"type": "input_text", "text": "Hi"}]}],
        instructions="Be nice",
    )
    client.completions.with_raw_response.create(model="auto", prompt="Once")
    client.embeddings.with_raw_response.create(model="e", input=["a", "b"])
    chat, parsed, response, completion, embedding = server.requests
    assert (chat.prompt, chat.stream, chat.has_tools, chat.max_output_tokens) == (
        "\u00e9t\u00e9 \u2028 x",
        True,
        True,
        7,
    )
    assert chat.modalities == {"text", "image"}
    assert parsed.json_mode
    assert (response.prompt, response.system) == ("Hi", "Be nice")
    assert completion.prompt == "Once"
    assert (embedding.model, embedding.prompt) == ("e", "a\n\nb")


def test_reads_what_anthropic_sends() -> None:
    server = Server()
    client = server.anthropic()
    messages: Any = [{"role": "user", "content": "Hi"}]
    client.messages.with_raw_response.create(
        model="auto", max_tokens=5, messages=messages, system="Be nice", metadata={"user_id": "u"}
    )
    client.beta.messages.with_raw_response.create(
        model="auto", max_tokens=5, messages=messages, system=[{"type": "text", "text": "Be nice"}], betas=["x"]
    )
    plain, beta = server.requests
    assert (plain.prompt, plain.system, plain.max_output_tokens, plain.user) == ("Hi", "Be nice", 5, "u")
    assert (beta.prompt, beta.system, beta.user) == ("Hi", "Be nice", None)


def test_openai_lists_models() -> None:
    client = Server().openai()
    assert [model.id for model in client.models.list()] == list(NAMES)
    model = client.models.retrieve("org/large 2")
    assert (model.id, model.object, model.owned_by) == ("org/large 2", "model", "router-extproc")
    with pytest.raises(openai.NotFoundError, match="'gpt-9' does not exist") as caught:
        client.models.retrieve("gpt-9")
    assert caught.value.code == "model_not_found"


def test_anthropic_lists_models() -> None:
    client = Server().anthropic()
    page = client.models.list()
    assert [model.id for model in page] == list(NAMES)
    assert (page.has_more, page.first_id, page.last_id) == (False, "auto", "org/large 2")
    model = client.models.retrieve("cheap-1")
    assert (model.id, model.type, model.display_name, model.created_at.year) == ("cheap-1", "model", "cheap-1", 2026)
    with pytest.raises(anthropic.NotFoundError, match="does not exist"):
        client.models.retrieve("gpt-9")


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/v1/models"),
        ("GET", "/v1/models/"),
        ("GET", "/v1/modelsx"),
        ("GET", "/v1/chat/completions"),
        ("GET", "/"),
    ],
)
def test_other_requests_are_not_about_models(method: str, path: str) -> None:
    assert answer_models(method, path, {}, NAMES) is None


def test_an_empty_catalogue_is_an_empty_page() -> None:
    answer = answer_models("GET", "/v1/models?limit=1000", {"anthropic-version": "2023-06-01"}, ())
    assert answer is not None
    assert json.loads(answer.body) == {"data": [], "has_more": False, "first_id": None, "last_id": None}
