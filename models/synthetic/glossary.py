"""Questions about the terms, people, works and events of each domain's textbooks: `glossary/*.txt`.

An encoder of this size does not know that a perceptual map is marketing and a lichen biology; a few thousand labelled
questions name only a part of what there is. Each file lists one domain's terms with a gloss, under the subject that they
belong to; `~` marks a term that tells its domain only with the gloss. Composed for this project, from general knowledge.
"""

# ruff: noqa: E501 - lists of example phrases read better unbroken
from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

FOLDER = Path(__file__).parent / "glossary"


@dataclass(frozen=True, slots=True)
class Entry:
    """A term and what it is. `plain`: the term tells its domain by itself."""

    term: str
    gloss: str
    subject: str
    plain: bool


OF_TERM = (
    "What is {term}?",
    "what is {term}",
    "whats {term}?",
    "{Term} is",
    "{Term} refers to",
    "{Term} is best described as",
    "{Term} is best known for",
    "The term {term} refers to which of the following?",
    "Which of the following best describes {term}?",
    "Which of the following is true of {term}?",
    "Which of the following statements about {term} is NOT correct?",
    "Which of these is most closely associated with {term}?",
    "All of the following are true of {term} EXCEPT",
    "All of the following are associated with {term} EXCEPT:",
    "Which of the following is an example of {term}?",
    "Which of the following would be the strongest objection to {term}?",
    "The significance of {term} is that",
    "The main point of {term} is",
    "According to {term},",
    "{Term}, according to most textbooks,",
    "Explain {term}.",
    "Explain {term} to me like I'm twelve",
    "can someone explain {term} in simple words",
    "Why does {term} matter?",
    "Give an example of {term} and say what it shows.",
    "How is {term} related to {term2}?",
    "How does {term} differ from {term2}?",
    "{term} vs {term2}?",
    "difference between {term} and {term2}",
    "Compared with {term2}, {term}",
    "Which of the following links {term} and {term2}?",
    "Discuss {term} and its relation to {term2}.",
    "What role does {term} play in {term2}?",
    "Write 200 words on {term}.",
    "I have an exam tomorrow and still don't get {term}, help",
    "Is {term} the same as {term2}?",
    "Summarise what I need to know about {term} for a test.",
    "In a question about {term}, a student confuses it with {term2}. What is the mistake?",
)
"""Stems as they stand in exams, and what people type. `{term2}` is another term of the same subject."""
OF_GLOSS = (
    "What is the name for {gloss}?",
    "What do we call {gloss}?",
    "The term for {gloss} is",
    "{Gloss} is known as",
    "{Gloss}:",
    "____ is the name for {gloss}.",
    "Which of the following is {gloss}?",
    "Which term means {gloss}?",
    "Which of the following terms stands for {gloss}?",
    "What's the word for {gloss}? it's on the tip of my tongue",
    "I'm looking for this: {gloss}. What was it called?",
    "Identify: {gloss}.",
    "Name the following: {gloss}",
    "A question in the quiz asks for {gloss}, and I have no idea",
)
OF_BOTH = (
    "{Term} is {gloss}. True or false?",
    "True or false: {term} is {gloss}",
    "Explain why {term}, that is, {gloss}, matters.",
    "{Term} ({gloss}): give an example.",
    "Which of the following best explains why {term} counts as {gloss}?",
    "{Term} can be described as {gloss}. Which of the following follows from this?",
    "Our lecture notes say that {term} means {gloss}. Can you make that clearer?",
    "Statement 1 | {Term} is {gloss}. Statement 2 | {Term2} is {gloss2}.",
    "If {term} is {gloss}, what then is {term2}?",
    "{Term}: {gloss}. How does this compare with {term2}, {gloss2}?",
    "flashcard: {term} / {gloss}. ask me another one like it",
    "My flashcards:\n{term} - {gloss}\n{term2} - {gloss2}\nAsk me about them.",
)
WITH_SUBJECT = (
    "{subject}: what is {term}?",
    "I'm revising {subject}. What does {term} mean?",
    "In {subject}, {term} is",
    "In {subject}, which of the following is meant by {term}?",
    "[{subject}] explain {term} and {term2}",
    "quiz me on {subject}, start with {term}",
)
OPTIONS = (
    ("A. ", "B. ", "C. ", "D. "),
    ("(A) ", "(B) ", "(C) ", "(D) "),
    ("1. ", "2. ", "3. ", "4. "),
    ("a) ", "b) ", "c) ", "d) "),
)


@cache
def glossary() -> dict[str, tuple[Entry, ...]]:
    """Entries by domain. A term that several domains list tells none of them by itself."""
    found: dict[str, list[Entry]] = {}
    for path in sorted(FOLDER.glob("*.txt")):
        entries = found.setdefault(path.stem.replace("_", " "), [])
        subject = ""
        for line in path.read_text(encoding="utf-8").splitlines():
            if line.startswith("# "):
                subject = line[2:]
                continue
            term, _, gloss = line.partition(": ")
            entries.append(Entry(term.removeprefix("~"), gloss, subject, not term.startswith("~")))
    shared = Counter(term for entries in found.values() for term in {entry.term.lower() for entry in entries})
    return {
        domain: tuple(replace(entry, plain=entry.plain and shared[entry.term.lower()] == 1) for entry in entries)
        for domain, entries in found.items()
    }


@cache
def _by_subject(domain: str) -> dict[str, tuple[Entry, ...]]:
    subjects: dict[str, list[Entry]] = {}
    for entry in glossary()[domain]:
        subjects.setdefault(entry.subject, []).append(entry)
    return {subject: tuple(entries) for subject, entries in subjects.items()}


def glossary_question(rng: random.Random) -> tuple[str, str]:
    """A question about one or two entries, and its domain."""
    domain = rng.choice(sorted(glossary()))
    return question(rng.choice(glossary()[domain]), domain, rng), domain


def question(entry: Entry, domain: str, rng: random.Random) -> str:
    """A question about `entry`, which is one of `domain`."""
    fellows = [other for other in _by_subject(domain)[entry.subject] if other is not entry] or [entry]
    draw = rng.random()
    frames: tuple[str, ...]
    if draw < 0.18:
        return _with_options(entry, fellows, rng)
    if draw < 0.26:
        frames = WITH_SUBJECT
    elif entry.plain and draw < 0.66:
        frames = OF_TERM
    else:
        frames = OF_BOTH if draw > 0.8 else OF_GLOSS
    return _filled(rng.choice(frames), entry, rng.choice(fellows))


def _filled(frame: str, entry: Entry, other: Entry) -> str:
    words = {"term": entry.term, "gloss": entry.gloss, "term2": other.term, "gloss2": other.gloss}
    words |= {name.capitalize(): text[:1].upper() + text[1:] for name, text in words.items()}
    return frame.format(subject=entry.subject, **words)


def _with_options(entry: Entry, fellows: list[Entry], rng: random.Random) -> str:
    """A stem and four options of one subject: glosses for a term, or terms for a gloss."""
    options = [entry, *rng.sample(fellows, min(3, len(fellows)))]
    rng.shuffle(options)
    if rng.random() < 0.5:
        stem = _filled(rng.choice(OF_GLOSS[:9]), entry, entry)
        texts = [option.term for option in options]
    else:
        stem = _filled(rng.choice(OF_TERM[:9]), entry, entry)
        texts = [option.gloss for option in options]
    marks, between = rng.choice(OPTIONS), rng.choice(("\n", "\n", " "))
    return stem + between + between.join(mark + text for mark, text in zip(marks, texts, strict=False))
