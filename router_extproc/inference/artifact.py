"""Reading a classifier's folder: what its files say, checked, before any weight is put to work. No torch here."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

from router_extproc.inference.base import UnusableModel
from router_extproc.inference.ngrams import NgramSpec
from router_extproc.inference.pooling import NO_SPAN
from router_extproc.inference.spans import entity_types

FORMAT = 1
"""Version of the folder's layout that this reader knows."""

COMPLEXITY = "complexity"
"""Name of the head that is derived from the win probabilities: labels `low` and `high`, value in [0, 1]."""

Kind = Literal["label", "multi_label", "token"]
Pooling = Literal["mean", "attention", "max"]

_DIGESTED = ("config.json", "heads.json", "heads.safetensors", "model.safetensors", "tokenizer.json")
STEPS = "int8.safetensors"
"""How inputs are rounded where products are between integers. A folder need not have it."""


@dataclass(frozen=True, slots=True)
class HeadSpec:
    """One head: `scale` and `offset` are applied to the logits before the sigmoid, `1 / temperature` before softmax."""

    name: str
    kind: Kind
    labels: tuple[str, ...]
    pooling: Pooling
    scale: tuple[float, ...]
    offset: tuple[float, ...]
    ngrams: NgramSpec | None


@dataclass(frozen=True, slots=True)
class Complexity:
    """Complexity from calibrated win probabilities: indices of the small models' labels in head `head`."""

    head: str
    weak: tuple[int, ...]
    low: float
    high: float

    def value(self, win: Mapping[str, float], labels: tuple[str, ...]) -> float:
        """How likely a small model fails, mapped from `low`..`high` to 0..1."""
        need = 1 - sum(win[labels[i]] for i in self.weak) / len(self.weak)
        return min(1.0, max(0.0, (need - self.low) / (self.high - self.low)))


@dataclass(frozen=True, slots=True)
class EncoderSpec:
    """Shape of the BERT encoder."""

    layers: int
    width: int
    attention_heads: int
    norm_epsilon: float
    positions: int


@dataclass(frozen=True, slots=True)
class Artifact:
    """A classifier's folder, described. `digest` is the SHA-256 over names and contents of its files, in hex."""

    directory: Path
    digest: str
    version: str
    max_tokens: int
    encoder: EncoderSpec
    heads: tuple[HeadSpec, ...]
    complexity: Complexity | None

    @property
    def labels(self) -> dict[str, tuple[str, ...]]:
        """Labels per head as signals see them: entity types (and `none`) for token heads."""
        found = {head.name: head.labels if head.kind != "token" else entity_labels(head) for head in self.heads}
        if self.complexity is not None:
            found[COMPLEXITY] = ("low", "high")
        return found


def entity_labels(head: HeadSpec) -> tuple[str, ...]:
    """The entity types of a token head's BIO labels, in order, after `none`."""
    return (NO_SPAN, *entity_types(head.labels))


def _files(directory: Path) -> tuple[str, ...]:
    return (*_DIGESTED, *([STEPS] if (directory / STEPS).exists() else []))


def digest_of(directory: Path, names: Sequence[str]) -> str:
    """SHA-256 over the files that decide answers, each preceded by its name and length, in hex."""
    digest = hashlib.sha256()
    for name in names:
        path = directory / name
        digest.update(f"{name} {path.stat().st_size}\n".encode())
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


def stamp(directory: Path) -> str:
    """Another one whenever a file of the folder was replaced or written. "" where one is missing."""
    return stamp_of(directory, _files(directory))


def stamp_of(directory: Path, names: Sequence[str]) -> str:
    """Another one whenever one of these files was replaced or written, at little cost. "" where one is missing.

    Links are followed: a folder behind a link that was moved is another one.
    """
    try:
        found = [(directory / name).stat() for name in names]
    except OSError:
        return ""
    return " ".join(f"{file.st_ino}:{file.st_size}:{file.st_mtime_ns}" for file in found)


def check_pin(directory: Path, found: str, pinned: str | None) -> None:
    """Raises UnusableModel when a digest is pinned (with or without `sha256:` before it) and is another one."""
    if pinned is not None and found != pinned.lower().removeprefix("sha256:"):
        raise UnusableModel(f"{directory}: digest is {found}, pinned is {pinned}")


def read(directory: Path, *, digest: str | None = None) -> Artifact:
    """Reads and checks the folder's descriptions. `digest`, when given, must be that of its files.

    Raises UnusableModel with what is wrong.
    """
    if not (directory / "heads.json").is_file():
        raise UnusableModel(
            f"{directory}: no classifier here, heads.json is missing; give the folder of one with "
            "--model-dir (a pip package brings none)"
        )
    try:
        found = digest_of(directory, _files(directory))
        check_pin(directory, found, digest)
        described = json.loads((directory / "heads.json").read_text(encoding="utf-8"))
        config = json.loads((directory / "config.json").read_text(encoding="utf-8"))
        if described.get("format") != FORMAT:
            raise UnusableModel(
                f"{directory}/heads.json: format {described.get('format')!r}, this reader knows {FORMAT}"
            )
        heads = tuple(
            _head(name, entry)
            for name, entry in described["heads"].items()
            if entry.get("kind") in ("label", "multi_label", "token")
        )
        encoder = _encoder(config)
        return Artifact(
            directory=directory,
            digest=found,
            version=f"{described['version']}+{found[:8]}",
            max_tokens=min(int(described["max_tokens"]), encoder.positions),
            encoder=encoder,
            heads=heads,
            complexity=_complexity(described.get("complexity"), heads),
        )
    except (OSError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise UnusableModel(f"{directory}: {type(error).__name__}: {error}") from error


def _encoder(config: Mapping[str, Any]) -> EncoderSpec:
    if config["model_type"] != "bert" or config.get("hidden_act", "gelu") != "gelu":
        raise ValueError("the shipped reader knows BERT encoders with GELU")
    if config.get("position_embedding_type", "absolute") != "absolute":
        raise ValueError("the shipped reader knows absolute positions")
    return EncoderSpec(
        layers=int(config["num_hidden_layers"]),
        width=int(config["hidden_size"]),
        attention_heads=int(config["num_attention_heads"]),
        norm_epsilon=float(config["layer_norm_eps"]),
        positions=int(config["max_position_embeddings"]),
    )


def _head(name: str, entry: Mapping[str, Any]) -> HeadSpec:
    labels = tuple(str(label) for label in entry["labels"])
    kind = cast("Kind", entry["kind"])
    if not labels or len(set(labels)) != len(labels):
        raise ValueError(f"head {name}: labels must be different and at least one")
    if kind != "token" and NO_SPAN in labels:
        raise ValueError(f"head {name}: `{NO_SPAN}` is what token heads say that found nothing")
    calibration = entry.get("calibration") or {}
    if kind == "multi_label":
        scale = _per_label(calibration.get("scale", 1.0), labels, name)
        offset = _per_label(calibration.get("offset", 0.0), labels, name)
    else:
        temperature = float(calibration.get("temperature", 1.0))
        if temperature <= 0:
            raise ValueError(f"head {name}: temperature {temperature} is not positive")
        scale, offset = (1 / temperature,) * len(labels), (0.0,) * len(labels)
    pooling = entry.get("pooling", "mean")
    if pooling not in ("mean", "attention", "max"):
        raise ValueError(f"head {name}: unknown pooling {pooling!r}")
    ngrams = entry.get("ngrams")
    known = {key: int(ngrams[key]) for key in NgramSpec.__slots__ if key in ngrams} if ngrams else {}
    return HeadSpec(name, kind, labels, pooling, scale, offset, NgramSpec(**known) if ngrams else None)


def _per_label(value: Any, labels: tuple[str, ...], head: str) -> tuple[float, ...]:
    values = [float(v) for v in (value if isinstance(value, list) else [value])]
    if len(values) == 1:
        values *= len(labels)
    if len(values) != len(labels):
        raise ValueError(f"head {head}: {len(values)} calibration values for {len(labels)} labels")
    return tuple(values)


def _complexity(entry: Mapping[str, Any] | None, heads: tuple[HeadSpec, ...]) -> Complexity | None:
    """Absent when the head that it is derived from is: a first artefact may ship without it."""
    source = next((head for head in heads if entry and head.name == entry.get("head")), None)
    if not entry or source is None:
        return None
    weak = tuple(source.labels.index(label) for label in entry["weak"])
    low, high = float(entry["low"]), float(entry["high"])
    if not weak or not low < high:
        raise ValueError("complexity: needs weak models and low < high")
    return Complexity(source.name, weak, low, high)
