"""A classifier's folder as a `base.Model`: texts to rows, one pass over them, all heads, answers per text."""

from __future__ import annotations

import array
import threading
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path

import torch
import torch.nn.functional as F  # noqa: N812 - the name that PyTorch's own documentation uses
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from router_extproc.inference import artifact
from router_extproc.inference.artifact import Artifact
from router_extproc.inference.base import Classified, Prompt, UnusableModel
from router_extproc.inference.encoder.bert import ROUND, Encoder, assemble
from router_extproc.inference.encoder.device import batch_tokens, choose
from router_extproc.inference.encoder.graphs import GraphedEncoder
from router_extproc.inference.encoder.heads import Heads
from router_extproc.inference.encoder.precision import compute_type
from router_extproc.inference.pooling import combine, spans_result
from router_extproc.inference.tokens import TokenWindow, TokenWindows


def load(
    directory: Path,
    *,
    digest: str | None = None,
    device: str = "auto",
    dtype: str = "auto",
    threads: int | None = None,
) -> BertClassifier:
    """Reads a classifier's folder (`models/FORMAT.md`).

    `device` is `auto` (a GPU where there is one), `cpu`, or a CUDA device's name; `dtype` is `auto` (what the device
    multiplies fastest), `float32`, `bfloat16` or `float16`; `threads` those of a CPU's pass, by default one per core.

    Raises UnusableModel when a file is missing, broken, of an unknown format, or not of the pinned `digest`.
    """
    described = artifact.read(directory, digest=digest)
    try:
        chosen = choose(device, threads)
        encoder = load_file(directory / "model.safetensors", backend="pread")
        heads = load_file(directory / "heads.safetensors", backend="pread")
        return BertClassifier(described, encoder, heads, chosen, compute_type(chosen, dtype))
    except (OSError, KeyError, ValueError, RuntimeError, SafetensorError) as error:
        raise UnusableModel(f"{directory}: {type(error).__name__}: {error}") from error


class BertClassifier:
    """A `base.Model` over one shipped-format folder. Any thread may call `run`."""

    def __init__(
        self,
        described: Artifact,
        encoder: Mapping[str, Tensor],
        heads: Mapping[str, Tensor],
        device: torch.device,
        dtype: torch.dtype,
    ) -> None:
        self._artifact = described
        self._device = device
        self._tokens = TokenWindows(described.directory / "tokenizer.json", described.max_tokens)
        self._encoder = Encoder(described.encoder, encoder, device, dtype)
        self._heads = Heads(described, heads, device)
        self._labels = described.labels
        self._batch_tokens = batch_tokens(device)
        self._graphs = GraphedEncoder(self._encoder, device, self._batch_tokens) if device.type == "cuda" else None
        self._lock = threading.Lock()
        self._warm = False

    @property
    def version(self) -> str:
        """The artefact's version and the beginning of its digest."""
        return self._artifact.version

    @property
    def digest(self) -> str:
        """SHA-256 of the folder, to pin."""
        return self._artifact.digest

    @property
    def labels(self) -> Mapping[str, tuple[str, ...]]:
        """Labels per head."""
        return self._labels

    @property
    def batch_tokens(self) -> int:
        """Tokens that a batch should hold, padding included."""
        return self._batch_tokens

    @property
    def folds(self) -> bool:
        """Where its tokenizer drops case and blanks, before any head sees them."""
        return self._tokens.folds

    def warm_up(self) -> None:
        """Runs every rounded batch length up to one full row, so that each kernel exists, and one batch of several.

        Once: a model that is warm, and becomes part of another, stays warm.
        """
        if self._warm:
            return
        if self._graphs is not None:
            with torch.inference_mode():
                self._graphs.record()
        for length in range(ROUND, self._artifact.max_tokens + 1, ROUND):
            self.run([Prompt("a " * (length - 2))])
        self.run([Prompt("a " * (self._artifact.max_tokens - 2)), Prompt("a", "b"), Prompt("")])
        self._warm = True

    def run(self, prompts: Sequence[Prompt]) -> list[Classified]:
        """Classifies a batch, in order; texts over the token window are read in several rows and pooled."""
        # The buffers of a recorded pass serve one caller at a time.
        with self._lock if self._graphs is not None else nullcontext():
            return self._run(prompts)

    def _run(self, prompts: Sequence[Prompt]) -> list[Classified]:
        rows = self._tokens.encode(prompts)
        parts: list[list[Classified]] = [[] for _ in prompts]
        order = sorted(range(len(rows)), key=lambda i: len(rows[i].ids))
        answers: dict[int, Classified] = {}
        with torch.inference_mode():
            for chunk in self._chunks(rows, order):
                passed = self._pass([rows[i] for i in chunk], prompts)
                answers.update(zip(chunk, passed, strict=True))
        for i, row in enumerate(rows):
            parts[row.prompt].append(answers[i])
        return [combine([(0, part) for part in found]) for found in parts]

    def _chunks(self, rows: Sequence[TokenWindow], order: Sequence[int]) -> list[list[int]]:
        """Rows of like length together, each chunk within the device's budget of padded tokens."""
        chunks: list[list[int]] = []
        for i in order:
            if chunks and len(rows[i].ids) * (len(chunks[-1]) + 1) <= self._batch_tokens:
                chunks[-1].append(i)
            else:
                chunks.append([i])
        return chunks

    def _pass(self, rows: Sequence[TokenWindow], prompts: Sequence[Prompt]) -> list[Classified]:
        replayed = self._graphs(rows) if self._graphs is not None else None
        if replayed is None:
            batch = assemble(rows, self._device)
            hidden = self._encoder(batch)
        else:
            hidden, batch = replayed
        texts = [row.text(prompts[row.prompt]) for row in rows] if self._heads.reads_text else []
        probs, tokens, pooled = self._heads(hidden, batch, texts)
        unit = F.normalize(pooled, dim=1).cpu().numpy()
        answers: list[Classified] = []
        for index, row in enumerate(rows):
            heads = self._heads.results(probs[index])
            for head, bio in self._heads.token_heads:
                found = tokens[head.name][index, 1 : row.count + 1]
                if (found.argmax(axis=1) == bio.outside).all():
                    spans = []
                else:
                    text = prompts[row.prompt].text
                    spans = bio.decode(found, row.encoding.offsets[row.first : row.first + row.count], text)
                nothing = float(found[:, bio.outside].min()) if len(found) else 1.0
                heads[head.name] = spans_result(spans, certainty=nothing)
            answers.append(
                Classified(
                    heads=heads,
                    tokens=len(row.ids),
                    version=self.version,
                    embedding=array.array("f", unit[index].tobytes()),
                )
            )
        return answers
