"""The whole pass on a GPU as one launch: recorded once per shape as a CUDA graph, replayed with new tokens.

Launching some hundred kernels one by one costs more than running them for a short text. A graph has fixed shapes and
fixed addresses, so a batch is padded to the next recorded number of rows and row length, and goes through one block of
numbers in and one out: one copy to the device, one launch, one copy back, one wait.

What must hold for that:

- The blocks on the CPU are pinned, or the copies would not be asynchronous, and they are written again by the next
  batch. So every pass ends by waiting for its own event, and begins by waiting for that of the one before, which only
  matters when that one was broken off in between.
- All passes run on the device's default stream, whichever thread calls, and one at a time (the caller's lock): the
  graphs share one memory pool, where each overwrites what the others left.
- Recording goes on while another model serves on another thread. It therefore has a stream of its own, and the mode
  in which the driver forbids unsafe calls to this thread alone.

On a CPU the recorded function is called instead of replayed, with the same blocks: so tests see everything but the
graphs themselves, which `tests/gpu` runs where there is a GPU (an H200 so far). Where recording fails the eager pass
serves, with a log line.
"""

from __future__ import annotations

import logging
from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain
from operator import itemgetter

import numpy as np
import torch
from torch import Tensor

from router_extproc.inference.encoder.bert import Batch, Encoder
from router_extproc.inference.encoder.heads import Heads, Scores
from router_extproc.inference.tokens import TokenWindow

log = logging.getLogger(__name__)

ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
LENGTHS = (16, 32, 64, 128, 256)
_WARM_UPS = 3

Shape = tuple[int, int]
"""Rows, and tokens per row."""


def shapes(max_tokens: int, budget: int) -> list[Shape]:
    """What is recorded: rows of up to `max_tokens` tokens (the encoder knows no positions beyond), in batches of up to
    `budget` tokens, but always single ones."""
    lengths = [*(length for length in LENGTHS if length < max_tokens), max_tokens]
    return [(rows, length) for length in lengths for rows in ROWS if rows == 1 or rows * length <= budget]


@dataclass(frozen=True, slots=True)
class _Recording:
    """One shape: its block on the device, how to run it, and where the answer lies then."""

    block: Tensor
    run: Callable[[], None]
    answer: Tensor


class GraphedPass:
    """Recorded passes of one classifier on one device: rows in, the heads' scores out. One call at a time."""

    def __init__(self, encoder: Encoder, heads: Heads, device: torch.device, max_tokens: int, budget: int) -> None:
        """`budget` bounds rows x length of the shapes that are recorded."""
        self._encoder = encoder
        self._heads = heads
        self._device = device
        self._shapes = shapes(max_tokens, budget)
        self._recordings: dict[Shape, _Recording] = {}
        self._known: list[tuple[int, list[int]]] = []
        self._sent = torch.empty(0, dtype=torch.int32)
        self._landed = torch.empty(0)
        self._done: torch.cuda.Event | None = None

    @property
    def recorded(self) -> bool:
        """Whether there is anything to replay."""
        return bool(self._recordings)

    def shape(self, rows: int, longest: int) -> Shape | None:
        """The smallest recorded shape that holds a batch; None when it is larger than all."""
        for length, counts in self._known[bisect_left(self._known, longest, key=itemgetter(0)) :]:
            if rows <= counts[-1]:
                return counts[bisect_left(counts, rows)], length
        return None

    def record(self) -> None:
        """Records every shape, largest first so that all fit into the memory of the first. Takes seconds."""
        largest_first = sorted(self._shapes, key=lambda shape: -shape[0] * shape[1])
        try:
            recordings = self._graphs(largest_first) if self._device.type == "cuda" else self._calls(largest_first)
        except RuntimeError as error:
            log.warning("no CUDA graphs, the eager pass serves: %s", error)
            return
        pin = self._device.type == "cuda"
        most_in = max(recording.block.numel() for recording in recordings.values())
        most_out = max(recording.answer.numel() for recording in recordings.values())
        self._sent = torch.empty(most_in, dtype=torch.int32, pin_memory=pin)
        self._landed = torch.empty(most_out, dtype=torch.float32, pin_memory=pin)
        self._recordings = recordings
        lengths = sorted({length for _, length in recordings})
        self._known = [(length, sorted(rows for rows, other in recordings if other == length)) for length in lengths]

    def __call__(self, rows: Sequence[TokenWindow], from_text: Tensor) -> Scores:
        """The heads' scores of the rows, which must fit a recorded shape. `from_text` as `Heads.from_text` gives it."""
        shape = self.shape(len(rows), max(len(row.ids) for row in rows))
        if shape is None:
            raise ValueError("a batch larger than every recorded shape")
        recording = self._recordings[shape]
        if self._done is not None:
            self._done.synchronize()
        sent, landed = self._sent[: recording.block.numel()], self._landed[: recording.answer.numel()]
        self._write(sent, shape, rows, from_text)
        recording.block.copy_(sent, non_blocking=True)
        recording.run()
        landed.copy_(recording.answer, non_blocking=True)
        if self._device.type == "cuda":
            # Blocking: the cores that a spinning thread would keep are Envoy's and the event loop's.
            self._done = self._done or torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call]
            self._done.record(torch.cuda.current_stream(self._device))
            self._done.synchronize()
        return self._heads.scores(landed.numpy(), *shape)

    def _write(self, sent: Tensor, shape: Shape, rows: Sequence[TokenWindow], from_text: Tensor) -> None:
        """Fills the block on the CPU. Rows of the filling have one token: attention over none is not a number."""
        count, length = shape
        area, block = count * length, sent.numpy()
        block[:] = 0
        ids, types = block[:area].reshape(shape), block[area : 2 * area].reshape(shape)
        lengths = block[2 * area : 2 * area + count]
        lengths[:] = 1
        lengths[: len(rows)] = [len(row.ids) for row in rows]
        mask = np.arange(length) < lengths[: len(rows), None]
        ids[: len(rows)][mask] = list(chain.from_iterable(row.ids for row in rows))
        for index, row in enumerate(rows):
            types[index, row.second : len(row.ids)] = 1
        texts = block[2 * area + count :].view(np.float32).reshape(count, -1)
        texts[: len(rows)] = from_text.numpy()

    def _pass(self, block: Tensor, shape: Shape) -> Tensor:
        """What is recorded: from the block to the flat answer of all heads."""
        count, length = shape
        area = count * length
        parts = [area, area, count, count * self._heads.from_text_width]
        ids, types, lengths, texts = torch.split(block, parts)
        column = torch.arange(length, device=block.device)
        batch = Batch(
            ids=ids,
            positions=column.repeat(count),
            types=types,
            rows=count,
            longest=length,
            lengths=lengths,
            pad=ids,
            unpad=ids,
            mask=column[None, :] < lengths[:, None],
            aligned=True,
            full=False,
        )
        return self._heads(self._encoder(batch), batch, texts.view(torch.float32).view(count, -1))

    def _block(self, shape: Shape) -> Tensor:
        """A block on the device with valid content: rows of one token each."""
        count, length = shape
        area = count * length
        block = torch.zeros(2 * area + count * (1 + self._heads.from_text_width), dtype=torch.int32)
        block[2 * area : 2 * area + count] = 1
        return block.to(self._device)

    def _graphs(self, wanted: Sequence[Shape]) -> dict[Shape, _Recording]:
        recordings: dict[Shape, _Recording] = {}
        with torch.cuda.device(self._device):
            side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
            pool = torch.cuda.graph_pool_handle()
            for shape in wanted:
                block = self._block(shape)
                side.wait_stream(torch.cuda.current_stream())
                with torch.cuda.stream(side):
                    for _ in range(_WARM_UPS):
                        self._pass(block, shape)
                side.synchronize()
                graph = torch.cuda.CUDAGraph()
                with torch.cuda.graph(graph, pool=pool, stream=side, capture_error_mode="thread_local"):
                    answer = self._pass(block, shape)
                recordings[shape] = _Recording(block, graph.replay, answer)
        return recordings

    def _calls(self, wanted: Sequence[Shape]) -> dict[Shape, _Recording]:
        recordings: dict[Shape, _Recording] = {}
        for shape in wanted:
            block = self._block(shape)
            answer = self._pass(block, shape)

            def run(block: Tensor = block, answer: Tensor = answer, shape: Shape = shape) -> None:
                answer.copy_(self._pass(block, shape))

            recordings[shape] = _Recording(block, run, answer)
        return recordings
