"""Fits the language head: hashed character n-grams and one softmax.

The encoder has no part in this head, its weights are zero: its vocabulary is English.

python -m models.language --data ../shared/data --model models/router-minilm
"""

from __future__ import annotations

import argparse
import json
import random
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from safetensors.torch import load_file
from torch import nn
from tqdm import tqdm

from models.data import read_rows
from models.files import replace_tensors
from models.network import NGRAMS
from models.ngrams import ngram_buckets, ngram_logits
from models.synthetic.phrases import PHRASES

_NAMES = {
    "English": "en", "Hindi": "hi", "Turkish": "tr", "Arabic": "ar", "Spanish": "es", "Italian": "it", "Bengali": "bn",
    "Filipino/Tagalog": "tl", "Vietnamese": "vi", "Russian": "ru", "Korean": "ko", "French": "fr", "German": "de",
    "Indonesian": "id", "Portuguese": "pt", "Japanese": "ja", "Thai": "th", "Chinese": "zh",
}  # fmt: skip
_ENGLISH_INTENTS = 5000
Row = tuple[str, str]


def training_rows(folder: Path, labels: tuple[str, ...], rng: random.Random) -> list[Row]:
    """(text, code) pairs: news sentences, short pieces of them, everyday phrases, prompts whose language is known."""
    news = [(r["text"], r["label"]) for r in read_rows(folder, "language.jsonl.gz") if r["split"] == "train"]
    rows = list(news)
    for text, label in news:
        words = text.split()
        if len(words) > 3:
            count = rng.randint(1, 5)
            start = rng.randrange(len(words) - count + 1) if len(words) > count else 0
            rows.append((" ".join(words[start : start + count]), label))
        elif len(text) > 12 and " " not in text:
            start = rng.randrange(len(text) - 8)
            rows.append((text[start : start + rng.randint(3, 10)], label))
    for code, phrases in PHRASES.items():
        # What comes without any other hint is English more often than anything else.
        for phrase in phrases * (25 if code == "en" else 4):
            pair = phrase if rng.random() < 0.6 else f"{phrase} {rng.choice(phrases)}"
            rows.append((pair if rng.random() < 0.5 else pair.capitalize() + rng.choice(("", "?", "!", ".")), code))
    # Sources that are English throughout; the one with real users' prompts is not.
    english = [
        r["text"]
        for r in read_rows(folder, "intent.jsonl.gz")
        if r["split"] == "train" and r["source"] != "arena_hard_v2"
    ]
    rows += [(text, "en") for text in rng.sample(english, min(_ENGLISH_INTENTS, len(english)))]
    for r in read_rows(folder, "jailbreak.jsonl.gz"):
        code = _NAMES.get(str(r.get("lang")), str(r.get("lang")))
        if r["split"] == "train" and not str(r["source"]).startswith("cyberseceval"):
            rows.append((r["text"], code))
    # A folder may lack languages that the phrases know.
    return [(text, code) for text, code in rows if code in labels]


def _bags(texts: list[str]) -> list[npt.NDArray[np.int64]]:
    return [ngram_buckets(text, **NGRAMS) for text in texts]


def fit(data: Path, model: Path, *, seed: int = 17, epochs: int = 10) -> float:
    """Trains the head and writes it into `heads.safetensors`; returns accuracy on `val`, nan without rows."""
    heads = json.loads((model / "heads.json").read_text(encoding="utf-8"))["heads"]
    if "language" not in heads:
        return float("nan")
    torch.manual_seed(seed)
    labels = tuple(heads["language"]["labels"])
    index = {label: i for i, label in enumerate(labels)}
    rows = training_rows(data, labels, random.Random(seed))
    val = [(r["text"], r["label"]) for r in read_rows(data, "language.jsonl.gz") if r["split"] == "val"]
    texts = [text for text, _ in rows]
    wanted = torch.tensor([index[label] for _, label in rows])
    bags = [torch.from_numpy(bag) for bag in _bags(texts)]
    table = nn.EmbeddingBag(NGRAMS["buckets"], len(labels), mode="mean")
    nn.init.zeros_(table.weight)
    bias = nn.Parameter(torch.zeros(len(labels)))
    optimiser = torch.optim.Adam([{"params": list(table.parameters())}, {"params": [bias]}])
    steps = epochs * (len(rows) // 256 + 1)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, [0.08, 2e-3], total_steps=steps, pct_start=0.1)
    for epoch in tqdm(range(epochs), desc="language", mininterval=5):
        order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed + epoch))
        for begin in range(0, len(rows), 256):
            picked = order[begin : begin + 256].tolist()
            kept = [bags[i][torch.rand(len(bags[i])) > 0.2] for i in picked]
            offsets = torch.tensor([0, *np.cumsum([len(bag) for bag in kept])[:-1].tolist()])
            logits = table(torch.cat(kept), offsets) + bias
            loss = nn.functional.cross_entropy(logits, wanted[picked], label_smoothing=0.02)
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            schedule.step()
    path = model / "heads.safetensors"
    tensors = load_file(path)
    tensors["language.ngrams.weight"] = table.weight.detach().half()
    tensors["language.out.weight"] = torch.zeros_like(tensors["language.out.weight"])
    tensors["language.out.bias"] = bias.detach()
    replace_tensors(path, tensors)
    if not val:
        return float("nan")
    weight = table.weight.detach().half().numpy()
    predicted = [int((ngram_logits(text, weight) + bias.detach().numpy()).argmax()) for text, _ in val]
    accuracy = float(np.mean([labels[p] == label for p, (_, label) in zip(predicted, val, strict=True)]))
    tqdm.write(f"language: {accuracy:.3f} of {len(val)} val sentences")
    return accuracy


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--model", type=Path, required=True)
    args = parser.parse_args()
    fit(args.data, args.model)
