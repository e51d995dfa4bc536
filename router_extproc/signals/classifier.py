"""What a head of a classifier says."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from router_extproc.domain import MAX_PIECES, SignalValue
from router_extproc.errors import ConfigMistakes, Mistake
from router_extproc.inference.base import Classified
from router_extproc.inference.pooling import harmless, points, strictest, watches
from router_extproc.signals.base import READS, SHIPPED, Heads, Reads, SignalInputs
from router_extproc.validation import did_you_mean
from router_extproc.words import whole_words


class ClassifierParams(BaseModel):
    """Which head of which classifier."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    head: str = Field(description="The head, for instance `intent`, `domain`, `guard`.")
    classifier: str = Field(SHIPPED, description="The classifier that it belongs to.")
    reads: Reads = READS


class ClassifierSignal:
    """What a head of a classifier says of the prompt: the most probable label, its calibrated confidence, and in
    `scores` the probability of every label."""

    Params = ClassifierParams

    def __init__(self, params: ClassifierParams, heads: Heads) -> None:
        self.classifier = params.classifier
        self.labels = head_labels(params.classifier, params.head, heads)
        self._head = params.head
        self.reads = checked_reads(params.reads, watching=watches(self.labels))
        self.marks = points(self.labels)

    def evaluate(self, inputs: SignalInputs) -> SignalValue | None:
        """The head's answer; None when the classifier's pass is missing."""
        return read_head(inputs, self.classifier, self._head, self.reads)


def head_labels(classifier: str, head: str, heads: Heads) -> tuple[str, ...]:
    """The labels of a head. Raises ConfigMistakes when there is no such classifier or head."""
    known = heads.get(classifier)
    if known is None:
        message = f"unknown classifier `{classifier}`{did_you_mean(classifier, heads)}"
        raise ConfigMistakes([Mistake(("classifier",), message)])
    if head not in known:
        message = f"the classifier `{classifier}` has no head `{head}`{did_you_mean(head, known)}"
        raise ConfigMistakes([Mistake(("head",), message)])
    return known[head]


def checked_reads(reads: Reads, *, watching: bool) -> Reads:
    """`reads`, where a head may read so that is `watching` for what must not be overlooked. Raises ConfigMistakes."""
    if reads is not Reads.PROMPT and not watching:
        message = f"`{reads}` is for heads that look for what must not be overlooked, such as `guard` and `pii`"
        raise ConfigMistakes([Mistake(("reads",), message)])
    return reads


def read_head(inputs: SignalInputs, classifier: str, head: str, reads: Reads = Reads.PROMPT) -> SignalValue | None:
    """One head of a pass as a signal value; None when the pass or the head is missing.

    Where more than the prompt is read, a text without a pass makes it None too, unless something was found in others.
    Nothing found in a text that was cut short, or beside what is no text, is `partial`.
    """
    prompt = inputs.request.prompt
    texts: list[tuple[str, Classified | str | None]] = [(prompt, inputs.classified.get(classifier))]
    if reads is not Reads.PROMPT:
        written, fresh = inputs.request.written, inputs.request.fresh
        wanted = frozenset(written[:fresh] if reads is Reads.UNTRUSTED else written)
        texts += [(text, passes.get(classifier)) for text, passes in inputs.beside if text in wanted]
        if not prompt and len(texts) > 1:
            del texts[0]
    read = [(text, found) for text, found in texts if isinstance(found, Classified) and head in found.heads]
    if not read:
        return None
    answers = [found.heads[head] for _, found in read]
    pieces = dict.fromkeys(
        piece
        for text, found in read
        for piece in whole_words(text, ((span.start, span.end) for span in found.heads[head].spans))
    )
    result = answers[0] if len(answers) == 1 else strictest(answers)
    clean, unread = harmless(result), len(read) < len(texts)
    if unread and clean:
        return None
    short = inputs.request.unread or any(found.cut_short for _, found in read)
    return SignalValue(
        *(result.label, result.confidence, result.value, result.probs),
        pieces=tuple(pieces)[:MAX_PIECES],
        partial=short and clean,
        more=(unread or short or len(pieces) > MAX_PIECES) and not clean,
    )
