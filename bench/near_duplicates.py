"""What a memory of the classifier could give for texts that are only alike: how often it answers, how often wrongly.

For each likeness threshold, of texts that differ from a remembered one by a known edit, and of texts that are simply
other texts: the share that would be answered from memory, and of these the share to which the pass itself gives another
label (of domain, intent or language; guards, personal data and expected correctness must never be guessed). Likeness is
the cosine of mean word vectors, a look-up in the encoder's own table without a pass, among texts of about equal length.

It also says which foldings of a text leave every answer as it was: the exact memory may use those.

    python -m bench.near_duplicates [--texts FILE.jsonl.gz ...] [--count 250] [--confident 0.9] [--seed 0]

Texts are JSON lines with `text` (and `split`, of which `test` and `val` are taken); by default the examples' prompts.
"""

from __future__ import annotations

import argparse
import gzip
import json
import random
import time
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from safetensors.torch import load_file
from tokenizers import Encoding, Tokenizer

from router_extproc.app import SHIPPED_MODEL
from router_extproc.inference.base import Classified, Prompt
from router_extproc.inference.encoder import load

Vectors = npt.NDArray[np.float32]

GUESSED = ("domain", "intent", "language")
THRESHOLDS = (0.9, 0.95, 0.97, 0.98, 0.99, 0.995, 0.999)
LIKE_LENGTH = 0.1
BATCH = 32


def typo(text: str, rng: random.Random, _: Sequence[str]) -> str:
    at = [i for i in range(len(text) - 1) if text[i].isalpha() and text[i + 1].isalpha() and text[i] != text[i + 1]]
    i = rng.choice(at) if at else -1
    return text if i < 0 else text[:i] + text[i + 1] + text[i] + text[i + 2 :]


def punctuation(text: str, rng: random.Random, _: Sequence[str]) -> str:
    return text[:-1] if text[-1:] in ".?!" else text + rng.choice(".?!")


def polite(text: str, rng: random.Random, _: Sequence[str]) -> str:
    return rng.choice(("Please: {}", "{} Thanks!", "Hi, {}")).format(text)


def another_word(text: str, rng: random.Random, words: Sequence[str]) -> str:
    parts = text.split(" ")
    at = [i for i, part in enumerate(parts) if len(part) > 4 and part.isalpha()]
    if at:
        parts[rng.choice(at)] = rng.choice(words)
    return " ".join(parts)


def another_number(text: str, rng: random.Random, _: Sequence[str]) -> str:
    return "".join(rng.choice("0123456789") if c.isdigit() else c for c in text)


EDITS: dict[str, Callable[[str, random.Random, Sequence[str]], str]] = {
    "typo": typo,
    "punctuation": punctuation,
    "polite": polite,
    "another word": another_word,
    "another number": another_number,
}

FOLDINGS: dict[str, Callable[[str], str]] = {
    "ASCII case": lambda text: text.swapcase() if text.isascii() else text,
    "blanks": lambda text: "  " + text.replace(" ", "  ").replace("\n", "\r\n") + " \n",
    "NFD for NFC": lambda text: unicodedata.normalize("NFD", text),
}


def texts_of(paths: Sequence[Path]) -> Iterator[str]:
    for path in paths:
        with gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else path.open(encoding="utf-8") as lines:
            for line in lines:
                row = json.loads(line)
                if row.get("split", "test") in ("test", "val"):
                    yield row["text"] if "text" in row else row["prompt"]


def examples() -> list[Path]:
    return sorted(Path("examples").glob("*/prompts.jsonl"))


class WordVectors:
    """Mean of the word vectors of a text, of unit length."""

    def __init__(self) -> None:
        self._tokenizer: Tokenizer = Tokenizer.from_file(str(SHIPPED_MODEL / "tokenizer.json"))
        weights = load_file(SHIPPED_MODEL / "model.safetensors")
        self._table = weights["embeddings.word_embeddings.weight"].float().numpy()

    def __call__(self, texts: Sequence[str]) -> Vectors:
        found = [self._table[encoded.ids or [0]].mean(0) for encoded in self._encoded(texts)]
        vectors = np.stack(found)
        unit: Vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        return unit

    def _encoded(self, texts: Sequence[str]) -> list[Encoding]:
        encoded: list[Encoding] = self._tokenizer.encode_batch(list(texts), add_special_tokens=False)
        return encoded


def labels(answers: Sequence[Classified], heads: Sequence[str]) -> list[tuple[str, ...]]:
    return [tuple(answer.heads[head].label for head in heads) for answer in answers]


def table(name: str, likeness: npt.NDArray[np.float32], changed: npt.NDArray[np.bool_]) -> None:
    cells = []
    for threshold in THRESHOLDS:
        hits = likeness >= threshold
        wrong = changed[hits].mean() if hits.any() else 0.0
        cells.append(f"{hits.mean():6.1%} {wrong:6.1%} of {int(hits.sum()):<5}")
    print(f"{name:16}", *cells, sep=" | ")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--texts", type=Path, nargs="*", default=[])
    parser.add_argument("--count", type=int, default=250)
    parser.add_argument("--confident", type=float, default=0.0, help="remember an answer only if all heads are so sure")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    rng = random.Random(arguments.seed)
    texts = sorted(set(texts_of(arguments.texts or examples())))
    rng.shuffle(texts)
    known, others = texts[: arguments.count], texts[arguments.count : 2 * arguments.count]
    words = [word for text in texts for word in text.split() if len(word) > 4 and word.isalpha()]
    model, vectors = load(SHIPPED_MODEL, device="cpu"), WordVectors()

    def run(prompts: Sequence[str]) -> list[Classified]:
        batches = (prompts[at : at + BATCH] for at in range(0, len(prompts), BATCH))
        return [answer for batch in batches for answer in model.run([Prompt(text) for text in batch])]

    base = run(known)
    heads = tuple(base[0].heads)
    sure = [i for i, each in enumerate(base) if min(each.heads[h].confidence for h in GUESSED) >= arguments.confident]
    known, base = [known[i] for i in sure], [base[i] for i in sure]
    print(f"{len(known)} of {arguments.count} texts remembered; any head's label changes by folding:")
    for name, folding in FOLDINGS.items():
        folded = run([folding(text) for text in known])
        changed = [a != b for a, b in zip(labels(base, heads), labels(folded, heads), strict=True)]
        largest = max(
            abs(answer.heads[head].probs[label] - value)
            for before, answer in zip(base, folded, strict=True)
            for head in heads
            for label, value in before.heads[head].probs.items()
            if label in answer.heads[head].probs
        )
        print(f"  {name:12} {sum(changed) / len(changed):.2%}, largest change of a probability {largest:.4f}")

    print("\nanswered from memory, and of these with another label than the pass gives, by likeness of at least:")
    print(f"{'':16}", *(f"{threshold:<22}" for threshold in THRESHOLDS), sep=" | ")
    known_vectors = vectors(known)
    for name, edit in EDITS.items():
        edited = [edit(text, rng, words) for text in known]
        pairs = [i for i, text in enumerate(edited) if text != known[i]]
        likeness = (vectors(edited) * known_vectors).sum(1)[pairs]
        before, after = labels(base, GUESSED), labels(run(edited), GUESSED)
        table(name, likeness, np.array([before[i] != after[i] for i in pairs], dtype=bool))

    began = time.perf_counter()
    other_vectors = vectors(others)
    took = (time.perf_counter() - began) / len(others)
    near = other_vectors @ known_vectors.T
    lengths = np.array([len(text) for text in known])
    for row, text in enumerate(others):
        near[row, np.abs(lengths - len(text)) > LIKE_LENGTH * len(text)] = -1
    nearest = near.argmax(1)
    before, after = labels(base, GUESSED), labels(run(others), GUESSED)
    changed_others = np.array([before[best] != after[row] for row, best in enumerate(nearest)], dtype=bool)
    table("other texts", near.max(1), changed_others)
    print(f"\nto look one up costs {took * 1e6:.0f} us and the comparison with all that is remembered")


if __name__ == "__main__":
    main()
