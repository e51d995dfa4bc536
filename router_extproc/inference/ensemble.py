"""One model out of several: the shipped classifier, heads fitted on users' examples, and users' own classifiers.

They run as one on the one inference thread. A head fitted on examples costs microseconds, for it reads the embedding of
the pass that runs anyway; a user's own classifier adds its own forward pass to every text.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TypeVar

from router_extproc.inference.base import Classified, Model, Prompt
from router_extproc.inference.examples import ExamplesHead, LeaveOneOut, fit

T = TypeVar("T")


class Ensemble:
    """A `base.Model` that answers with the heads of all its members, under names that do not clash."""

    def __init__(self, base: Model, fitted: Mapping[str, ExamplesHead], guests: Mapping[str, Model]) -> None:
        """`fitted` by head name; `guests` by the name under which their one head shall answer."""
        self._base = base
        self._fitted = dict(fitted)
        self._guests = dict(guests)
        names = "\n".join([*fitted, *(f"{name} {guest.version}" for name, guest in guests.items())])
        self._version = f"{base.version}+{hashlib.sha256(names.encode()).hexdigest()[:8]}"
        self._labels = dict(base.labels)
        self._labels |= {name: head.labels for name, head in fitted.items()}
        self._labels |= {name: only(guest.labels) for name, guest in guests.items()}

    @property
    def version(self) -> str:
        """The base model's, and a digest of what was added."""
        return self._version

    @property
    def labels(self) -> Mapping[str, tuple[str, ...]]:
        """Labels of all heads."""
        return self._labels

    @property
    def batch_tokens(self) -> int:
        """The base model's."""
        return self._base.batch_tokens

    @property
    def folds(self) -> bool:
        """As the base model, where nobody else reads the text."""
        return self._base.folds and not self._guests

    @property
    def reports(self) -> Mapping[str, LeaveOneOut]:
        """How well each head does that was fitted on examples."""
        return {name: head.report for name, head in self._fitted.items()}

    def warm_up(self) -> None:
        """Warms every member up."""
        self._base.warm_up()
        for guest in self._guests.values():
            guest.warm_up()

    def run(self, prompts: Sequence[Prompt]) -> list[Classified]:
        """The base model's answers, with the other heads' beside them."""
        results = self._base.run(prompts)
        guests = {name: guest.run(prompts) for name, guest in self._guests.items()}
        return [
            replace(
                result,
                version=self._version,
                heads={
                    **result.heads,
                    **{name: head.classify(result.embedding) for name, head in self._fitted.items()},
                    **{name: only(answers[index].heads) for name, answers in guests.items()},
                },
            )
            for index, result in enumerate(results)
        ]


def fit_head(base: Model, examples: Mapping[str, Sequence[str]]) -> ExamplesHead:
    """Fits a head on what `base` makes of each label's example prompts. Some 10 ms per example on a CPU, off the loop.

    Raises ValueError when there are too few examples, or `base` gives no embeddings.
    """
    texts = [text for prompts in examples.values() for text in prompts]
    answers = iter(base.run([Prompt(text) for text in texts]))
    embedded = {label: [next(answers).embedding for _ in prompts] for label, prompts in examples.items()}
    if not all(len(vector) for vectors in embedded.values() for vector in vectors):
        raise ValueError(f"the classifier {base.version} gives no embeddings")
    return fit(embedded)


def only(members: Mapping[str, T]) -> T:
    """The value of a mapping that has one."""
    (member,) = members.values()
    return member
