"""Which rows are seen how often, and how they become padded batches with targets per head."""

from __future__ import annotations

import math
import random
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch

from models.augment import augmented, synthetic
from models.data import Example

TASK_SHARE = {"intent": 0.22, "domain": 0.34, "guard": 0.24, "win": 0.09, "pii": 0.07, "language": 0.04}
"""Share of the drawn rows. Language rows teach the guard that foreign text is harmless; its own head is
fitted afterwards."""
SYNTHETIC_SHARE = {"intent": 0.5, "domain": 0.5, "guard": 0.4, "pii": 0.3}
POOL_ROWS = 3072
"""Rows drawn at once. The more, the more alike are the lengths within a batch: of 768 rows 14 % of the tokens are
padding, of 3,072 7 %, so that a step sees 73 rows and not 65 in 4 % more time."""
CONTEXT_TOKENS = 96
EASY = ("small_talk", "other", "cs_")
EASY_WIN = 0.96
"""Assumed win probability of every reference model on greetings, device commands and support chatter."""

Batch = dict[str, Any]


@dataclass(frozen=True)
class Targets:
    """Index of every label of every head that is trained."""

    labels: dict[str, tuple[str, ...]]

    def index(self, head: str, label: str) -> int:
        """Position of `label` in the head's output, -100 (ignored) when unknown."""
        try:
            return self.labels[head].index(label)
        except ValueError:
            return -100


class Sampler:
    """Draws rows so that no source and no label dominates: both count with the square root of their size."""

    def __init__(self, tasks: dict[str, list[Example]], heads: dict[str, tuple[str, ...]]) -> None:
        self.tasks = tasks
        self.win_labels = heads.get("win", ())
        self.everything = [e for t in ("intent", "domain") for e in tasks.get(t, [])]
        self.names = [name for name in TASK_SHARE if name in tasks]
        self.shares = [TASK_SHARE[name] for name in self.names]
        self.groups: dict[str, list[list[Example]]] = {}
        self.group_weights: dict[str, list[float]] = {}
        for name in self.names:
            grouped: dict[tuple[str, str], list[Example]] = defaultdict(list)
            for example in tasks[name]:
                grouped[(example.source, example.labels.get(name, ""))].append(example)
            # Small noisy groups must not be seen dozens of times: at least the weight of 20 rows' root.
            self.groups[name] = list(grouped.values())
            power = 0.5 if name in ("intent", "guard", "language") else 0.75
            self.group_weights[name] = [len(group) ** power for group in self.groups[name]]

    def draw(self, rng: random.Random) -> Example:
        """One augmented example."""
        task = rng.choices(self.names, self.shares)[0]
        if rng.random() < SYNTHETIC_SHARE.get(task, 0.0):
            example = synthetic(task, rng)
        else:
            group = rng.choices(self.groups[task], self.group_weights[task])[0]
            example = rng.choice(group)
        intent = example.labels.get("intent", "")
        if self.win_labels and intent.startswith(EASY) and rng.random() < 0.15:
            return replace(example, win=dict.fromkeys(self.win_labels, EASY_WIN))
        return augmented(example, self.everything or [example], rng)


def _window(text: str, limit: int, anywhere: bool, rng: random.Random) -> str:
    """At most about `limit` tokens' worth of characters: the beginning, or a part from anywhere."""
    room = limit * 5
    if len(text) <= room or not anywhere:
        return text[: room * 2]
    start = rng.choice((0, 0, rng.randrange(len(text) - room), len(text) - room))
    return text[start : start + room * 2]


def token_limit(example: Example, rng: random.Random) -> int:
    """Tokens this example may take: attacks are long and hide, so guard rows get more."""
    if example.labels.get("guard", "benign") != "benign" or example.context:
        return 256
    if example.win is not None:
        return 128
    return 256 if rng.random() < 0.08 else 96


def encode(example: Example, tokenizer: Any, rng: random.Random) -> dict[str, Any]:
    """Token ids, segment ids and character offsets of one example."""
    limit = token_limit(example, rng)
    long_ok = example.win is None and example.spans is None
    text = _window(example.text, limit, long_ok, rng)
    if not example.context:
        encoded = tokenizer(text, truncation=True, max_length=limit, return_offsets_mapping=True)
        return dict(encoded)
    context = tokenizer(example.context, add_special_tokens=False)["input_ids"][-CONTEXT_TOKENS:]
    first = tokenizer(text, truncation=True, max_length=limit - len(context) - 1)["input_ids"]
    ids = [*first, *context, tokenizer.sep_token_id]
    types = [0] * len(first) + [1] * (len(context) + 1)
    return {"input_ids": ids, "token_type_ids": types, "offset_mapping": [(0, 0)] * len(ids)}


def token_targets(
    spans: list[tuple[int, int, str]], offsets: list[tuple[int, int]], labels: tuple[str, ...]
) -> list[int]:
    """BIO index per token; -100 for special tokens."""
    index = {label: i for i, label in enumerate(labels)}
    out = []
    previous: int | None = None
    for start, end in offsets:
        if start == end:
            out.append(-100)
            continue
        hit = next((i for i, (s, e, _) in enumerate(spans) if start < e and end > s), None)
        if hit is None:
            out.append(index["O"])
        else:
            out.append(index.get(f"{'I' if hit == previous else 'B'}-{spans[hit][2]}", index["O"]))
        previous = hit
    return out


def collate(
    rows: list[tuple[Example, dict[str, Any]]],
    targets: Targets,
    pad: int,
    mask_token: int,
    rng: random.Random,
    word_dropout: float = 0.05,
) -> Batch:
    """Padded tensors and targets of one batch. `word_dropout` of the tokens become `[MASK]`."""
    width = max(len(encoded["input_ids"]) for _, encoded in rows)
    ids = torch.full((len(rows), width), pad)
    types = torch.zeros((len(rows), width), dtype=torch.long)
    mask = torch.zeros((len(rows), width), dtype=torch.long)
    batch: Batch = {"label": {}, "weight": {}}
    for head in targets.labels:
        if head == "win":
            batch["win"] = torch.full((len(rows), len(targets.labels["win"])), float("nan"))
        elif head == "pii":
            batch["pii"] = torch.full((len(rows), width), -100)
        else:
            batch["label"][head] = torch.full((len(rows),), -100)
            batch["weight"][head] = torch.zeros(len(rows))
    for i, (example, encoded) in enumerate(rows):
        tokens = list(encoded["input_ids"])
        if example.win is None:
            for j in range(1, len(tokens) - 1):
                if rng.random() < word_dropout and tokens[j] > 200:
                    tokens[j] = mask_token
        n = len(tokens)
        ids[i, :n] = torch.tensor(tokens)
        mask[i, :n] = 1
        types[i, :n] = torch.tensor(encoded["token_type_ids"])
        for head, label in example.labels.items():
            if head in batch["label"]:
                batch["label"][head][i] = targets.index(head, label)
                batch["weight"][head][i] = example.weights.get(head, 1.0)
        if example.win is not None and "win" in batch:
            for j, model in enumerate(targets.labels["win"]):
                # Other models' answers stand in the data, too.
                batch["win"][i, j] = example.win.get(model, math.nan)
        if example.spans is not None and "pii" in batch:
            wanted = token_targets(example.spans, encoded["offset_mapping"], targets.labels["pii"])
            batch["pii"][i, :n] = torch.tensor(wanted)
    return batch | {"input_ids": ids, "token_type_ids": types, "attention_mask": mask}


def pool_batches(
    sampler: Sampler, tokenizer: Any, targets: Targets, token_budget: int, seed: str, count: int = POOL_ROWS
) -> Iterator[Batch]:
    """Batches of one pool of freshly drawn rows: similar lengths together, mixed tasks, random order.

    A pool depends on `seed` alone, so training can go on from any pool after an interruption.
    """
    rng = random.Random(seed)
    rows = []
    for _ in range(count):
        example = sampler.draw(rng)
        rows.append((example, encode(example, tokenizer, rng)))
    rows.sort(key=lambda row: len(row[1]["input_ids"]) + rng.random() * 6)
    batches: list[list[tuple[Example, dict[str, Any]]]] = [[]]
    for row in rows:
        if batches[-1] and len(row[1]["input_ids"]) * (len(batches[-1]) + 1) > token_budget:
            batches.append([])
        batches[-1].append(row)
    rng.shuffle(batches)
    for batch in batches:
        yield collate(batch, targets, tokenizer.pad_token_id, tokenizer.mask_token_id, rng)
