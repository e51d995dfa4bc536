"""Signal types by their name in router.yaml, and how configured signals are built."""

from __future__ import annotations

from collections.abc import Mapping

from router_extproc.config.policy import SignalSpec
from router_extproc.errors import ConfigMistakes, Mistake
from router_extproc.registry import Registry
from router_extproc.signals.base import Heads, Signal
from router_extproc.signals.classifier import ClassifierSignal
from router_extproc.signals.complexity import ComplexitySignal
from router_extproc.signals.examples import ExamplesSignal
from router_extproc.signals.header import HeaderSignal
from router_extproc.signals.hugging_face import HuggingFaceSignal
from router_extproc.signals.keywords import KeywordsSignal
from router_extproc.signals.language import LanguageSignal
from router_extproc.signals.modality import ModalitySignal
from router_extproc.signals.time import TimeSignal
from router_extproc.signals.tokens import TokensSignal
from router_extproc.signals.tools import ToolsSignal
from router_extproc.signals.turns import TurnsSignal

SIGNALS = Registry(
    "signal type",
    {
        "classifier": ClassifierSignal,
        "complexity": ComplexitySignal,
        "examples": ExamplesSignal,
        "header": HeaderSignal,
        "hugging_face": HuggingFaceSignal,
        "keywords": KeywordsSignal,
        "language": LanguageSignal,
        "modality": ModalitySignal,
        "time": TimeSignal,
        "tokens": TokensSignal,
        "tools": ToolsSignal,
        "turns": TurnsSignal,
    },
)


def build(name: str, spec: SignalSpec, heads: Heads) -> Signal:
    """The signal `name`. Raises ConfigMistakes with paths from the document's root."""
    signal: Signal = SIGNALS.build(spec.type, spec.params, ("signals", name), heads)
    return signal


def build_signals(specs: Mapping[str, SignalSpec], heads: Heads) -> tuple[dict[str, Signal], list[Mistake]]:
    """All signals that can be built, and what is wrong with the others."""
    signals: dict[str, Signal] = {}
    mistakes: list[Mistake] = []
    for name, spec in specs.items():
        try:
            signals[name] = build(name, spec, heads)
        except ConfigMistakes as error:
            mistakes += error.mistakes
    return signals, mistakes
