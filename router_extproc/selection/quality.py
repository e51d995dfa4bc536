"""How well a model will probably answer: predicted for the prompt where possible, else the operator's figure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from pydantic import Field

from router_extproc.config.model import Model
from router_extproc.config.schema import RouterConfig
from router_extproc.domain import SignalSet
from router_extproc.errors import ConfigMistakes, Mistake
from router_extproc.selection.base import SelectionInputs
from router_extproc.validation import did_you_mean

WIN = "win"

QualitySignal = Annotated[
    str,
    Field(description="Signal of a `win` head that predicts, per prompt, whether the models named in `like` do well."),
]


def check_likes(config: RouterConfig, labels: Mapping[str, tuple[str, ...] | None]) -> list[Mistake]:
    """Models that are `like` one which no configured signal predicts. `labels` are those of the signals."""
    asked = [WIN, *(route.selection.params.get("quality_signal") for route in config.routes)]
    predicting = [name for name in labels if name in asked]
    known: set[str] = set()
    for name in predicting:
        predicted = labels[name]
        if predicted is None:  # anything may be right
            return []
        known.update(predicted)
    return [
        Mistake(
            ("models", name, "like"), f"`{predicting[0]}` has no label `{model.like}`{did_you_mean(model.like, known)}"
        )
        for name, model in config.models.items()
        if predicting and model.like is not None and model.like not in known
    ]


class Quality:
    """Expected quality in [0, 1] per model and prompt; None where nothing is known."""

    def __init__(self, signal: str, inputs: SelectionInputs) -> None:
        """Raises ConfigMistakes when `signal` is given but not configured."""
        if signal != WIN and signal not in inputs.signals:
            message = f"unknown signal `{signal}`{did_you_mean(signal, inputs.signals)}"
            raise ConfigMistakes([Mistake(("quality_signal",), message)])
        self._signal = signal
        self._models: Mapping[str, Model] = inputs.models

    def predicts(self, name: str, signals: SignalSet) -> bool:
        """Whether what `of` gives is predicted for the prompt."""
        predicted, like = signals.values.get(self._signal), self._models[name].like
        return predicted is not None and like is not None and like in predicted.scores

    def of(self, name: str, signals: SignalSet) -> float | None:
        """The prediction for the prompt, else the catalogue's figure."""
        model = self._models[name]
        predicted = signals.values.get(self._signal)
        if predicted is None or model.like is None:
            return model.quality
        return predicted.scores.get(model.like, model.quality)
