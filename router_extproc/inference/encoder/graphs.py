"""The pass on a GPU as one launch: recorded once per shape as a CUDA graph, replayed with new tokens.

Launching some sixty kernels one by one costs more than running them for a short text. A graph has a fixed shape, so a
batch is padded to the next recorded number of rows and row length. NOT YET RUN ON A GPU: only the padding is covered by
tests; where recording fails the eager pass serves, with a log line.
"""

from __future__ import annotations

import logging
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import fields
from typing import Any

import torch
from torch import Tensor

from router_extproc.inference.encoder.bert import Batch, Encoder
from router_extproc.inference.tokens import TokenWindow

log = logging.getLogger(__name__)

ROWS = (1, 2, 4, 8, 16, 32, 64)
LENGTHS = (16, 32, 64, 128, 256)
_WARM_UPS = 3


def padded(rows: Sequence[TokenWindow], count: int, length: int, *, pin: bool = False) -> Batch:
    """`rows` as `count` rows of `length` tokens on the CPU, in pinned memory if wanted. Rows of the filling have one
    token, for attention over none is not a number."""
    ids = torch.zeros(count, length, dtype=torch.int64, pin_memory=pin)
    types = torch.zeros(count, length, dtype=torch.int64, pin_memory=pin)
    lengths = torch.ones(count, dtype=torch.int64, pin_memory=pin)
    for index, row in enumerate(rows):
        ids[index, : len(row.ids)] = torch.tensor(row.ids)
        types[index, row.second : len(row.ids)] = 1
        lengths[index] = len(row.ids)
    column = torch.arange(length)
    mask = column[None, :] < lengths[:, None]
    positions = column.expand(count, length).reshape(-1)
    nothing = torch.zeros(0, dtype=torch.int64)
    return Batch(
        ids=ids.view(-1),
        positions=positions.pin_memory() if pin else positions,
        types=types.view(-1),
        rows=count,
        longest=length,
        lengths=lengths,
        pad=nothing,
        unpad=nothing,
        mask=mask.pin_memory() if pin else mask,
        aligned=True,
        full=False,
    )


def first_rows(batch: Batch, hidden: Tensor, count: int) -> tuple[Tensor, Batch]:
    """The hidden states and the description of the first `count` rows of a padded batch, without the filling."""
    kept = {field.name: getattr(batch, field.name) for field in fields(batch)}
    kept |= {"rows": count, "lengths": batch.lengths[:count], "mask": batch.mask[:count]}
    return hidden[: count * batch.longest], Batch(**kept)


class GraphedEncoder:
    """Recorded passes of one encoder on one CUDA device. `record` before use; all calls on one thread."""

    def __init__(self, encoder: Encoder, device: torch.device, budget: int) -> None:
        """`budget` bounds rows x length of the shapes that are recorded."""
        self._encoder = encoder
        self._device = device
        self._shapes = [(rows, length) for rows in ROWS for length in LENGTHS if rows * length <= budget]
        self._graphs: dict[tuple[int, int], tuple[torch.cuda.CUDAGraph, Batch, Tensor]] = {}

    def record(self) -> None:
        """Records every shape, largest first so that all share one memory pool. Seconds."""
        pool = None
        try:
            for rows, length in sorted(self._shapes, key=lambda shape: -shape[0] * shape[1]):
                static = self._on_device(padded([], rows, length))
                side = torch.cuda.Stream(self._device)  # type: ignore[no-untyped-call]
                side.wait_stream(torch.cuda.current_stream(self._device))
                with torch.cuda.stream(side):
                    for _ in range(_WARM_UPS):
                        self._encoder(static)
                torch.cuda.current_stream(self._device).wait_stream(side)
                graph = torch.cuda.CUDAGraph()
                with torch.cuda.graph(graph, pool=pool):
                    hidden = self._encoder(static)
                pool = pool or graph.pool()
                self._graphs[rows, length] = graph, static, hidden
        except RuntimeError as error:
            self._graphs.clear()
            log.warning("no CUDA graphs, the eager pass serves: %s", error)

    def __call__(self, rows: Sequence[TokenWindow]) -> tuple[Tensor, Batch] | None:
        """Hidden states and their batch, as `Encoder` gives them; None when no recorded shape holds the rows."""
        shape = bucket(len(rows), max(len(row.ids) for row in rows))
        found = self._graphs.get(shape) if shape is not None else None
        if found is None or shape is None:
            return None
        graph, static, hidden = found
        fresh = padded(rows, *shape, pin=True)
        for name in ("ids", "types", "lengths", "mask"):
            getattr(static, name).copy_(getattr(fresh, name), non_blocking=True)
        graph.replay()
        return first_rows(static, hidden, len(rows))

    def _on_device(self, batch: Batch) -> Batch:
        values: dict[str, Any] = {field.name: getattr(batch, field.name) for field in fields(batch)}
        for name, value in values.items():
            if isinstance(value, Tensor):
                values[name] = value.to(self._device)
        return Batch(**values)


def bucket(rows: int, longest: int) -> tuple[int, int] | None:
    """The smallest recorded rows and length that hold a batch; None when it is larger than all."""
    if rows > ROWS[-1] or longest > LENGTHS[-1]:
        return None
    return ROWS[bisect_left(ROWS, rows)], LENGTHS[bisect_left(LENGTHS, longest)]
