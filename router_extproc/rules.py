"""The condition of a route: CEL, checked against the configured signals once, then evaluated in a microsecond."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import cel

from router_extproc.domain import LlmRequest, SignalValue
from router_extproc.errors import ConfigMistakes, Mistake
from router_extproc.validation import did_you_mean, shown

SIGNAL_FIELDS = ("label", "confidence", "value", "scores")
TYPE_NAMES = frozenset({"bool", "int", "uint", "double", "string", "bytes", "list", "map", "type", "null_type"})
RESERVED = frozenset(
    {"request", "true", "false", "null", "in", "as", "break", "const", "continue", "else", "for", "function", "if"}
    | {"import", "let", "loop", "namespace", "package", "return", "var", "void", "while"}
    | TYPE_NAMES
)
"""Names that no signal can have."""
FUNCTIONS = frozenset(
    {"size", "contains", "startsWith", "endsWith", "matches", "int", "uint", "double", "string", "bytes", "type", "dyn"}
    | {"timestamp", "duration", "getFullYear", "getMonth", "getDate", "getDayOfMonth", "getDayOfWeek", "getDayOfYear"}
    | {"getHours", "getMinutes", "getSeconds", "getMilliseconds"}
)
"""Functions that the CEL implementation has."""

Labels = Mapping[str, tuple[str, ...] | None]
"""Signal name -> the labels that it can have, None when open-ended."""


@dataclass(frozen=True, slots=True)
class Rule:
    """A compiled condition. `signals` are those that it reads, `scores` those of which it reads the scores.

    `constant` is its value when it reads nothing.
    """

    source: str
    program: cel.Program
    signals: tuple[str, ...]
    scores: frozenset[str]
    constant: bool | None

    def reads_more_than(self, names: Collection[str]) -> bool:
        """Whether it reads the request, or signals other than these."""
        return "request" in self.program.variables() or not set(self.signals) <= set(names)

    def holds(self, context: cel.Context) -> tuple[bool | None, str]:
        """Whether the condition holds, and where it has no value (None) why. Never raises.

        An absent signal leaves it without a value unless the rest decides alone: `false && absent` is false.
        """
        try:
            result = self.program.execute(context)
        except Exception as error:  # noqa: BLE001  # whatever a request makes of a rule, other rules may still match
            return None, shown(error.args[0] if error.args else error, 100)
        return (result, "") if isinstance(result, bool) else (None, f"gives {shown(result)}, not true or false")


def request_fields(request: LlmRequest, virtual: str) -> dict[str, Any]:
    """What rules see of a request as `request`."""
    return {
        "api": request.api,
        "model": request.model or "",
        "tokens": request.tokens,
        "max_output_tokens": request.max_output_tokens or 0,
        "turns": request.turns,
        "stream": request.stream,
        "has_tools": request.has_tools,
        "json_mode": request.json_mode,
        "modalities": sorted(request.modalities),
        "virtual": virtual,
    }


def signal_fields(value: SignalValue, with_scores: bool) -> dict[str, Any]:
    """What rules see of a signal. Scores only where a rule reads them: converting them costs more than all else."""
    fields = {"label": value.label, "confidence": value.confidence, "value": value.value}
    return {**fields, "scores": dict(value.scores)} if with_scores else fields


def compile_rule(source: str, labels: Labels) -> Rule:
    """Compiles and checks a condition. Raises ConfigMistakes, with paths from the rule itself (all empty)."""
    program = _parse(source)
    found = _check(source, program, labels)
    if found:
        raise ConfigMistakes([Mistake((), message) for message in dict.fromkeys(found)])
    variables = program.variables()
    tokens = _tokens(source)
    scores = frozenset(
        name for name in labels if any(tokens[i : i + 3] == [name, ".", "scores"] for i in range(len(tokens)))
    )
    signals = tuple(name for name in variables if name in labels)
    constant = None
    if not signals and "request" not in variables:
        constant = bool(program.execute({}))
    return Rule(source, program, signals, scores, constant)


def _parse(source: str) -> cel.Program:
    try:
        return cel.compile(source)
    except ValueError as error:
        text = str(error)
        place = re.search(r"ERROR: <input>:(\d+):(\d+): (?:Syntax error: )?(.*)", text)
        if place is None:
            raise ConfigMistakes([Mistake((), f"not valid CEL: {shown(text, 200)}")]) from None
        line, column, problem = place.groups()
        problem = "nested too deep" if "Recursion limit" in problem else problem.partition(" expecting ")[0]
        where = f"column {column}" if line == "1" else f"line {line}, column {column} of the expression"
        raise ConfigMistakes([Mistake((), f"not valid CEL at {where}: {problem}")]) from None


def _check(source: str, program: cel.Program, labels: Labels) -> list[str]:
    tokens = _tokens(source)
    bound = {
        tokens[i + 2]
        for i in range(len(tokens) - 2)
        if tokens[i] in ("all", "exists", "exists_one", "map", "filter") and tokens[i + 1] == "("
    }
    known = {*labels, "request"}
    found = [
        f"unknown signal `{name}`{did_you_mean(name, known)}"
        for name in program.variables()
        if name not in known | bound | TYPE_NAMES
    ]
    found += [
        f"unknown function `{name}`{did_you_mean(name, FUNCTIONS)}"
        for name in program.functions()
        if name.isidentifier() and not name.startswith("_") and name not in FUNCTIONS
    ]
    found += _check_fields(tokens, labels)
    return found or list(_try(program, labels))


def _check_fields(tokens: list[str], labels: Labels) -> Iterator[str]:
    """Unknown fields of signals and of `request`, and labels that a signal never has."""
    request = request_fields(LlmRequest("", None, None, ""), "")
    for i, name in enumerate(tokens):
        if i and tokens[i - 1] == ".":
            continue
        before, after, field = (
            tokens[i - 1] if i else "",
            "".join(tokens[i + 1 : i + 2]),
            "".join(tokens[i + 2 : i + 3]),
        )
        if name == "request" and after == "." and field not in request:
            yield f"`request` has no field `{field}`{did_you_mean(field, request)}"
        if name not in labels:
            continue
        if after == "." and field not in SIGNAL_FIELDS:
            yield f"a signal has no field `{field}`: `{name}` has label, confidence, value and scores"
        elif after in ("==", "!=", "in") or (before in ("==", "!=") and after not in (".", "[")):
            yield f"`{name}` is a signal: compare its label, `{name}.label`"
        elif after == "." and field in ("label", "scores"):
            yield from _unknown_labels(name, labels[name], _compared(tokens, i, field))


def _compared(tokens: list[str], i: int, field: str) -> list[str]:
    """The string literals that `tokens[i] . field` is compared with or indexed by."""
    rest = tokens[i + 3 :]
    if field == "scores":
        return [_text(rest[1])] if rest[:1] == ["["] and len(rest) > 1 and _is_text(rest[1]) else []
    if rest[:1] in (["=="], ["!="]) and len(rest) > 1 and _is_text(rest[1]):
        return [_text(rest[1])]
    if rest[:2] == ["in", "["]:
        end = rest.index("]") if "]" in rest else len(rest)
        return [_text(token) for token in rest[2:end] if _is_text(token)]
    if i >= 2 and tokens[i - 1] in ("==", "!=") and _is_text(tokens[i - 2]):
        return [_text(tokens[i - 2])]
    return []


def _unknown_labels(name: str, known: tuple[str, ...] | None, compared: Iterable[str]) -> Iterator[str]:
    if known is None:
        return
    for label in compared:
        if label not in known:
            yield f"`{name}` never has the label `{shown(label)}`{did_you_mean(label, known)}"


def _try(program: cel.Program, labels: Labels) -> Iterator[str]:
    """Runs the condition once on made-up values: wrong types show then."""
    request = LlmRequest("chat_completions", "auto", None, "text", tokens=100, max_output_tokens=100)
    context: dict[str, Any] = {"request": request_fields(request, "auto")}
    for name, known in labels.items():
        label = known[0] if known else ""
        context[name] = signal_fields(SignalValue(label, 1.0, 0.5, dict.fromkeys(known or (), 0.5)), with_scores=True)
    try:
        result = program.execute(context)
    except TypeError as error:
        yield f"mixes types that do not go together: {shown(str(error).partition('. ')[0], 120)}"
    except RuntimeError as error:
        yield shown(error, 150)
    except Exception:  # noqa: BLE001  # a missing score, a division by zero: another request may well have a value
        return
    else:
        if not isinstance(result, bool):
            yield f"must be true or false, gives {shown(result)}"


_TOKEN = re.compile(
    r"""[rRbB]{0,2}(?:"(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*')|//[^\n]*|[A-Za-z_]\w*|\d[\w.]*|==|!=|<=|>=|&&|\|\||\S""",
    re.S,
)


def _tokens(source: str) -> list[str]:
    return [token for token in _TOKEN.findall(source) if not token.startswith("//")]


def _is_text(token: str) -> bool:
    return token[-1] in "\"'" and len(token) > 1


def _text(token: str) -> str:
    return str(cel.evaluate(token))
