"""What the signals of a configuration add to the shipped classifier: heads from examples, and users' classifiers."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from router_extproc.config.loader import LoadedConfig
from router_extproc.config.policy import SignalSpec
from router_extproc.errors import ConfigMistakes, Mistake
from router_extproc.inference.base import InferenceError, Model, UnusableModel
from router_extproc.inference.engine import Engine
from router_extproc.inference.ensemble import Ensemble, fit_head
from router_extproc.inference.examples import ExamplesHead
from router_extproc.inference.hugging_face import stamp
from router_extproc.inference.own_thread import in_own_thread
from router_extproc.signals.examples import ExamplesParams
from router_extproc.signals.hugging_face import HuggingFaceParams
from router_extproc.validation import validate

log = logging.getLogger(__name__)

Signals = Mapping[str, SignalSpec]

OWN_TYPES = ("examples", "hugging_face")
"""Signal types that add a head to the classifier."""


@dataclass(frozen=True, slots=True)
class _Guest:
    """A user's classifier, and the stamp of its files from before it was loaded."""

    model: Model
    stamp: str


class OwnHeads:
    """Extends one base model to what a configuration's signals ask for. What was fitted or loaded for the configuration
    before, and is still asked for, is taken over, a user's classifier as long as its files are the same. Used by one
    caller at a time."""

    def __init__(self, base: Model, load: Callable[[HuggingFaceParams], Model]) -> None:
        """`load` reads a user's classifier, or raises UnusableModel."""
        self._base = base
        self._load = load
        self._fitted: dict[str, ExamplesHead] = {}
        self._guests: dict[str, _Guest] = {}

    @property
    def base(self) -> Model:
        """The model that is extended."""
        return self._base

    def on(self, base: Model) -> OwnHeads:
        """The same for another base model. Users' classifiers are taken over; what was fitted on the old one is not."""
        other = OwnHeads(base, self._load)
        other._guests = dict(self._guests)
        return other

    def extend(self, specs: Signals, earlier: Iterable[Signals] = ()) -> tuple[Model, list[str]]:
        """The model that answers every signal of `specs`, and a line per added head: how well it does, or what it is.

        The base itself where nothing is added. It goes on answering those of `earlier` configurations; no classifier is
        loaded for them. `base.run` is called here, also while it serves on its own thread. Takes some 10 ms per new
        example, and as long as `load` does: call it off the event loop. Raises ConfigMistakes with paths from the
        document's root.
        """
        fitted: dict[str, ExamplesHead] = {}
        guests: dict[str, _Guest] = {}
        notes: list[str] = []
        mistakes: list[Mistake] = []
        for name, spec in specs.items():
            at = ("signals", name)
            try:
                if spec.type == "examples":
                    params = validate(ExamplesParams, spec.params, at)
                    head = fitted[params.head] = self._examples_head(params)
                    notes.append(describe(name, head))
                elif spec.type == "hugging_face":
                    wanted = validate(HuggingFaceParams, spec.params, at)
                    guest = guests[wanted.head] = self._guest(wanted)
                    digest = getattr(guest.model, "digest", guest.model.version)
                    notes.append(f"signal {name}: {wanted.source}, digest {digest}")
            except ConfigMistakes as error:
                mistakes += error.mistakes
            except (ValueError, InferenceError) as error:
                mistakes.append(Mistake(at, str(error)))
        if mistakes:
            raise ConfigMistakes(mistakes)
        return self._answering(earlier, fitted, guests), notes

    def _answering(self, known: Iterable[Signals], fitted: dict[str, ExamplesHead], guests: dict[str, _Guest]) -> Model:
        """The model with these heads, and with what is there for configurations that were extended to before."""
        for spec in (spec for specs in known for spec in specs.values()):
            if spec.type == "examples":
                params = validate(ExamplesParams, spec.params)
                if params.head not in fitted:
                    # Another base may give no embeddings. That is no reason to refuse it for what is about to go.
                    with contextlib.suppress(ValueError, InferenceError):
                        fitted[params.head] = self._examples_head(params)
            elif spec.type == "hugging_face":
                wanted = validate(HuggingFaceParams, spec.params).head
                if wanted in self._guests:
                    guests.setdefault(wanted, self._guests[wanted])
        self._fitted, self._guests = fitted, guests
        if not fitted and not guests:
            return self._base
        return Ensemble(self._base, fitted, {head: guest.model for head, guest in guests.items()})

    def _examples_head(self, params: ExamplesParams) -> ExamplesHead:
        return self._fitted.get(params.head) or fit_head(self._base, params.labels)

    def _guest(self, wanted: HuggingFaceParams) -> _Guest:
        found, known = stamp(wanted.directory()), self._guests.get(wanted.head)
        return known if known is not None and known.stamp == found else _Guest(self._load(wanted), found)

    async def serve(self, engine: Engine, loaded: LoadedConfig, earlier: Iterable[Signals] = ()) -> None:
        """Lets `engine` answer every signal of `loaded`, and those of `earlier` configurations, besides what it answers
        by itself; swaps its model if need be.

        Raises ConfigError; the engine serves on as before then.
        """
        try:
            model, notes = await in_own_thread(partial(self.extend, loaded.config.signals, earlier))
            if model.version != engine.version:
                await engine.swap(model)
        except ConfigMistakes as error:
            raise loaded.error(error.mistakes) from None
        except UnusableModel as error:
            raise loaded.error([Mistake(("signals",), str(error))]) from None
        for note in notes:
            log.info("%s", note)

    async def keep_only(self, engine: Engine, known: Iterable[Signals]) -> None:
        """Lets `engine` answer the signals of these configurations, which it answers now, and no other's.

        Raises UnusableModel; the engine serves on as before then.
        """
        model = await in_own_thread(partial(self._answering, known, {}, {}))
        if model.version != engine.version:
            await engine.swap(model)


def review(loaded: LoadedConfig, model_dir: Path) -> list[str]:
    """Fits and loads what a configuration adds, to say how well its examples do. Without such signals it costs nothing.

    Raises ConfigError with every mistake, UnusableModel when the shipped classifier in `model_dir` cannot be read.
    """
    if not any(spec.type in OWN_TYPES for spec in loaded.config.signals.values()):
        return []
    from router_extproc.inference.encoder import load

    base = load(model_dir, device="cpu")
    try:
        return OwnHeads(base, partial(load_guest, device="cpu")).extend(loaded.config.signals)[1]
    except ConfigMistakes as error:
        raise loaded.error(error.mistakes) from None


def load_guest(params: HuggingFaceParams, device: str = "auto") -> Model:
    """Reads a user's classifier, and downloads it first where it is a hub's. Seconds to minutes: call it off the event
    loop. Raises UnusableModel."""
    # Imported here: who brings no classifier and runs none need not wait for PyTorch.
    from router_extproc.inference.encoder import load_hugging_face

    return load_hugging_face(
        params.directory(),
        benign=params.benign,
        temperature=params.temperature,
        digest=params.digest,
        device=device,
    )


def describe(name: str, head: ExamplesHead) -> str:
    """One line: the leave-one-out accuracy, and which labels are confused."""
    report = head.report
    line = f"signal {name}: {report.accuracy:.0%} of {report.examples} examples are right when left out"
    worst = [f"{c.label} taken for {c.other} ({c.count}x)" for c in report.confusions[:3]]
    return f"{line}; {', '.join(worst)}" if worst else line
