"""A classifier's folder as a `base.Model`: texts to rows, one pass over them, all heads, answers per text."""

from __future__ import annotations

import array
import logging
import threading
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from router_extproc.inference import artifact
from router_extproc.inference.artifact import Artifact
from router_extproc.inference.base import Classified, Prompt, UnusableModel
from router_extproc.inference.encoder.bert import ROUND, Encoder, assemble
from router_extproc.inference.encoder.device import batch_tokens, choose, most_threads, threads_for, use_threads
from router_extproc.inference.encoder.graphs import GraphedPass
from router_extproc.inference.encoder.heads import Heads, Scores
from router_extproc.inference.encoder.int8 import Steps, read_steps
from router_extproc.inference.encoder.precision import compute_type
from router_extproc.inference.pooling import combine, spans_result
from router_extproc.inference.tokens import TokenWindow, TokenWindows

log = logging.getLogger(__name__)


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
    multiplies fastest), `float32`, `bfloat16`, `float16`, or `int8` on a CPU for a folder that was fitted for it;
    `threads` those that a CPU's pass may take, by default one per core.

    Raises UnusableModel when a file is missing, broken, of an unknown format, or not of the pinned `digest`.
    """
    described = artifact.read(directory, digest=digest)
    try:
        chosen = choose(device)
        encoder = load_file(directory / "model.safetensors", backend="pread")
        heads = load_file(directory / "heads.safetensors", backend="pread")
        steps = read_steps(directory)
        taken = compute_type(chosen, dtype, whole=bool(steps))
        most = threads or most_threads(chosen)
        model = BertClassifier(described, encoder, heads, chosen, taken, steps, most)
    except (OSError, LookupError, ValueError, RuntimeError, SafetensorError) as error:
        raise UnusableModel(f"{directory}: {type(error).__name__}: {error}") from error
    log.info("classifier %s runs on %s in %s, threads: %d", model.version, chosen, model.number_type, most)
    return model


class BertClassifier:
    """A `base.Model` over one shipped-format folder. Any thread may call `run`."""

    def __init__(
        self,
        described: Artifact,
        encoder: Mapping[str, Tensor],
        heads: Mapping[str, Tensor],
        device: torch.device,
        dtype: torch.dtype,
        steps: Mapping[str, Steps],
        threads: int,
    ) -> None:
        self._artifact = described
        self._device, self._dtype, self._threads = device, dtype, threads
        self._tokens = TokenWindows(described.directory / "tokenizer.json", described.max_tokens)
        self._encoder = Encoder(described.encoder, encoder, device, dtype, steps)
        self._heads = Heads(described, heads, device)
        self._labels = described.labels
        self._batch_tokens = batch_tokens(device, threads)
        self._graphs = self._recordable() if device.type == "cuda" else None
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
    def number_type(self) -> str:
        """What the encoder's products are between: `int8`, `bfloat16`, `float16` or `float32`."""
        return str(self._dtype).removeprefix("torch.")

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
            with self._lock, torch.inference_mode():
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

    def _recordable(self) -> GraphedPass:
        """Shapes are rounded up: with twice the tokens of a batch, every batch of the queue fits one."""
        longest = self._artifact.max_tokens
        return GraphedPass(self._encoder, self._heads, self._device, longest, 2 * self._batch_tokens)

    def _chunks(self, rows: Sequence[TokenWindow], order: Sequence[int]) -> list[list[int]]:
        """Rows of like length together, each chunk within the device's budget of padded tokens, or what is recorded."""

        def fits(count: int, longest: int) -> bool:
            if self._graphs is not None and self._graphs.recorded:
                return self._graphs.shape(count, longest) is not None
            return longest * count <= self._batch_tokens

        chunks: list[list[int]] = []
        for i in order:
            if chunks and fits(len(chunks[-1]) + 1, len(rows[i].ids)):
                chunks[-1].append(i)
            else:
                chunks.append([i])
        return chunks

    def _pass(self, rows: Sequence[TokenWindow], prompts: Sequence[Prompt]) -> list[Classified]:
        scores = self._scores(rows, [row.text(prompts[row.prompt]) for row in rows])
        answers: list[Classified] = []
        for index, (row, probs) in enumerate(zip(rows, scores.probs[: len(rows)].tolist(), strict=True)):
            heads = self._heads.results(probs)
            for head, bio in self._heads.token_heads:
                found = scores.tokens[head.name][index, 1 : row.count + 1]
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
                    embedding=array.array("f", scores.unit[index].tobytes()),
                )
            )
        return answers

    def _scores(self, rows: Sequence[TokenWindow], texts: Sequence[str]) -> Scores:
        """Replayed where that is recorded. Either way the answers of all heads come back in one copy."""
        use_threads(threads_for(sum(len(row.ids) for row in rows), self._dtype, self._threads))
        from_text = self._heads.from_text(texts)
        if self._graphs is not None and self._graphs.recorded:
            return self._graphs(rows, from_text)
        batch = assemble(rows, self._device)
        flat = self._heads(self._encoder(batch), batch, from_text.to(self._device))
        return self._heads.scores(flat.cpu().numpy(), batch.rows, batch.longest)
