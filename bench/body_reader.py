"""What reading a body costs on the event loop: `python -m bench.body_reader`.

Each body is fed in chunks of several sizes. Printed per case: the whole reading in ms (best of several runs, and per
MB), the slowest single call, the time of `finish`, the peak of memory that the reader allocated beside the chunks, and
what `json.loads` of the whole body takes, which is what a reader at the end of the body would at least cost.
"""

from __future__ import annotations

import argparse
import base64
import json
import random
import time
import tracemalloc
from collections.abc import Callable
from typing import Any

from router_extproc.apis.table import for_path

CODE = '''def read(path: str, limit: int = 1024) -> dict[str, int]:
    """Counts the words of a file."""
    counts: dict[str, int] = {}
    with open(path, encoding="utf-8") as lines:
        for line in lines:
            for word in re.findall(r"[a-z']+\\\\b", line.lower())[:limit]:
                counts[word] = counts.get(word, 0) + 1
    return counts
'''


def _tools(count: int) -> list[dict[str, Any]]:
    properties = {
        name: {"type": "string", "description": f"The {name} to use. Must be absolute, not relative. {'x ' * 20}"}
        for name in ("file_path", "old_string", "new_string", "pattern", "command")
    }
    schema = {"type": "object", "properties": properties, "required": ["file_path"], "additionalProperties": False}
    return [
        {"name": f"Tool{index}", "description": "Edits a file. " * 60, "input_schema": schema} for index in range(count)
    ]


def coding_agent(turns: int = 72) -> bytes:
    """About 200 KB as a coding agent sends them to /v1/messages: tools, system prompt, tool calls and results."""
    reminder = (
        "<system-reminder>\n" + "Do what has been asked; nothing more, nothing less. " * 8 + "\n</system-reminder>"
    )
    messages: list[dict[str, Any]] = []
    for index in range(turns // 2):
        if index % 5 == 0:
            text = [{"type": "text", "text": reminder}, {"type": "text", "text": f"Fix the failing test no. {index}"}]
            messages.append({"role": "user", "content": text})
        else:
            result = {"type": "tool_result", "tool_use_id": f"toolu_{index}", "content": CODE * 8}
            messages.append({"role": "user", "content": [result, {"type": "text", "text": reminder}]})
        call = {"type": "tool_use", "id": f"toolu_{index + 1}", "name": "Edit", "input": {"new_string": CODE * 3}}
        messages.append({"role": "assistant", "content": [{"type": "text", "text": "Let me look at it."}, call]})
    messages.append({"role": "user", "content": "And now the same for the writer, please."})
    body = {
        "model": "auto",
        "max_tokens": 32000,
        "messages": messages,
        "system": [{"type": "text", "text": "You are a coding agent. " * 500, "cache_control": {"type": "ephemeral"}}],
        "tools": _tools(18),
        "stream": True,
    }
    return json.dumps(body).encode()


def image(megabytes: int) -> bytes:
    """One image as a data URL."""
    data = base64.b64encode(random.Random(1).randbytes(megabytes * 768 * 1024)).decode()
    parts = [
        {"type": "text", "text": "What is in this picture?"},
        {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{data}"}},
    ]
    return json.dumps({"model": "auto", "messages": [{"role": "user", "content": parts}]}).encode()


def prose(megabytes: int) -> bytes:
    """One long prompt of text."""
    text = 'The quick brown fox said "it\'s fine" and\nwent on. ' * (megabytes * 1024 * 1024 // 50)
    return json.dumps({"model": "auto", "messages": [{"role": "user", "content": text}]}).encode()


def many_messages(megabytes: int) -> bytes:
    """Messages of 4 KB."""
    messages = [
        {"role": ("user", "assistant")[index % 2], "content": CODE * 9} for index in range(megabytes * 1024 // 4)
    ]
    return json.dumps({"model": "auto", "messages": messages}).encode()


def documents(megabytes: int) -> bytes:
    """A batch of texts to embed."""
    return json.dumps({"model": "auto", "input": [CODE[:200]] * (megabytes * 1024 * 5)}).encode()


def token_ids(megabytes: int) -> bytes:
    """An embedding request of token ids: nothing but digits and commas."""
    return json.dumps({"model": "auto", "input": list(range(100_000)) * megabytes}).encode()


def brackets() -> bytes:
    """The worst that we know: nothing but brackets, as many as are allowed."""
    pairs = ",".join(["[[],{}]"] * 83_000)
    return f'{{"model":"auto","messages":[{{"role":"user","content":"hi"}}],"x":[{pairs}]}}'.encode()


def backslashes(megabytes: int) -> bytes:
    """The worst for strings: nothing but escapes."""
    return b'{"model":"auto","messages":[{"role":"user","content":"' + b'\\\\\\"' * (megabytes * 256 * 1024) + b'"}]}'


CASES: tuple[tuple[str, str, Callable[[], bytes], tuple[int, ...]], ...] = (
    (
        "chat, 100 bytes",
        "/v1/chat/completions",
        lambda: b'{"model":"auto","messages":[{"role":"user","content":"Hi"}]}',
        (1 << 20,),
    ),
    ("coding agent", "/v1/messages", coding_agent, (16 << 10, 64 << 10, 1 << 20)),
    ("image, 50 MB", "/v1/chat/completions", lambda: image(50), (16 << 10, 64 << 10, 1 << 20, 64 << 20)),
    ("prose, 10 MB", "/v1/chat/completions", lambda: prose(10), (64 << 10, 1 << 20)),
    ("4 KB messages, 10 MB", "/v1/chat/completions", lambda: many_messages(10), (64 << 10, 1 << 20)),
    ("200 B texts, 10 MB", "/v1/embeddings", lambda: documents(10), (64 << 10, 1 << 20)),
    ("token ids, 10 MB", "/v1/embeddings", lambda: token_ids(16), (64 << 10, 1 << 20)),
    ("brackets", "/v1/chat/completions", brackets, (64 << 10, 1 << 20)),
    ("backslashes, 10 MB", "/v1/chat/completions", lambda: backslashes(10), (64 << 10, 1 << 20)),
)


def measure(path: str, body: bytes, size: int, runs: int) -> dict[str, float]:
    """Milliseconds of one reading: `total`, `per_mb`, the slowest call `worst`, `finish`; `memory` in KiB."""
    chunks = [body[start : start + size] for start in range(0, len(body), size)]
    best: dict[str, float] = {}
    for _ in range(runs):
        calls = _read(path, chunks)
        if not best or sum(calls) < best["total"]:
            total = sum(calls)
            best = {"total": total, "per_mb": total / len(body) * 2**20, "worst": max(calls), "finish": calls[-1]}
    tracemalloc.start()
    _read(path, chunks)
    best["memory"] = tracemalloc.get_traced_memory()[1] / 1024
    tracemalloc.stop()
    return best


def _read(path: str, chunks: list[bytes]) -> list[float]:
    api = for_path(path)
    assert api is not None
    reader = api.reader()
    calls = []
    for chunk in chunks:
        start = time.perf_counter()
        reader.feed(chunk)
        reader.partial()
        reader.growing()
        calls.append((time.perf_counter() - start) * 1000)
    start = time.perf_counter()
    reader.finish()
    calls.append((time.perf_counter() - start) * 1000)
    return calls


def main() -> None:
    """Prints the table; with --out also writes JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--out")
    options = parser.parse_args()
    rows = []
    print(
        f"{'body':22} {'bytes':>10} {'chunk':>9} {'total ms':>9} {'ms/MB':>7} {'worst ms':>9} {'finish':>7} "
        f"{'KiB':>7} {'json.loads ms':>14}"
    )
    for name, path, make, sizes in CASES:
        body = make()
        start = time.perf_counter()
        json.loads(body)
        loads = (time.perf_counter() - start) * 1000
        for size in sizes:
            row = measure(path, body, size, options.runs)
            rows.append({"body": name, "bytes": len(body), "chunk": size, "json_loads": loads, **row})
            print(
                f"{name:22} {len(body):10} {size:9} {row['total']:9.2f} {row['per_mb']:7.2f} {row['worst']:9.2f} "
                f"{row['finish']:7.2f} {row['memory']:7.0f} {loads:14.2f}"
            )
    if options.out:
        with open(options.out, "w", encoding="utf-8") as file:
            json.dump(rows, file, indent=1)


if __name__ == "__main__":
    main()
