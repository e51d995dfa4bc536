"""The condition of a route: CEL, checked against the configured signals once, then evaluated in a microsecond, or told
by the labels alone."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import cel

from router_extproc.domain import LlmRequest, SignalValue
from router_extproc.errors import ConfigMistakes, Mistake
from router_extproc.facts import Facts, request_fields, signal_fields
from router_extproc.rule_tokens import Read, bound, flattened, is_text, required_labels, text_of, tokens_of
from router_extproc.rule_types import mismatches, unknown_label
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

_WANT_A_VALUE = frozenset({"", "==", "!=", "in", "&&", "||", "!", "?"})
"""Beside one of these, or the edge of the condition, a signal stands for one of its fields."""
_CEL_WRITES = {"and": "&&", "or": "||", "not": "!", "=": "==", "&": "&&", "|": "||", "is": "=="}

Labels = Mapping[str, tuple[str, ...] | None]
"""Signal name -> the labels that it can have, None when open-ended."""


@dataclass(frozen=True, slots=True)
class Rule:
    """A compiled condition, as written in `source` and `program`. `signals` are those that it reads.

    `constant` is its value when it reads nothing. `required` are labels without which it does not hold, whatever else
    is so: most rules of a large policy ask for some label, and are told by it without being evaluated. Those that are
    left are evaluated in the form of `flat`, which reads the variables of `reads`; a few cannot be written so, and are
    evaluated as `program`, which reads the signals of `whole` with all their fields.
    """

    source: str
    program: cel.Program
    signals: tuple[str, ...]
    constant: bool | None
    required: tuple[tuple[str, frozenset[str]], ...]
    flat: cel.Program | None
    reads: tuple[Read, ...]
    whole: tuple[Read, ...]

    def reads_more_than(self, names: Collection[str]) -> bool:
        """Whether it reads the request, or signals other than these."""
        return "request" in self.program.variables() or not set(self.signals) <= set(names)

    def holds(self, facts: Facts) -> bool | None:
        """Whether the condition holds, None where it has no value. Never raises.

        An absent signal leaves it without a value unless the rest decides alone: `false && absent` is false.
        """
        known = facts.signals.values
        for name, labels in self.required:
            value = known.get(name)
            if value is not None and value.label not in labels:
                return False
        try:
            if self.flat is None:
                result = self.program.execute(facts.whole(self.whole))
            else:
                result = self.flat.execute(facts.context(self.reads))
        except Exception:  # noqa: BLE001  # whatever a request makes of a rule, other rules may still match
            return None
        return result if isinstance(result, bool) else None

    def why_not(self, facts: Facts) -> str:
        """Why the condition has no value, "" when it has one."""
        try:
            result = self.program.execute(facts.whole(self.whole))
        except Exception as error:  # noqa: BLE001  # whatever it is, it is the answer
            return shown(error.args[0] if error.args else error, 100)
        return "" if isinstance(result, bool) else f"gives {shown(result)}, not true or false"


def compile_rule(source: str, labels: Labels) -> Rule:
    """Compiles and checks a condition. Raises ConfigMistakes, with paths from the rule itself (all empty)."""
    program = _parse(source)
    found = _check(source, program, labels)
    if found:
        raise ConfigMistakes([Mistake((), message) for message in dict.fromkeys(found)])
    variables = program.variables()
    tokens = tokens_of(source)
    signals = tuple(name for name in variables if name in labels)
    constant = None
    if not signals and "request" not in variables:
        try:
            constant = bool(program.execute({}))
        except Exception as error:  # noqa: BLE001 - no request can make it better
            raise ConfigMistakes([Mistake((), f"never has a value: {shown(error, 100)}")]) from None
    required = tuple((name, some) for name, some in required_labels(tokens).items() if name in labels)
    names = (*signals, "request")
    flat, reads = _flat(source, tokens, names)
    whole = tuple(Read(name, name) for name in names if name in variables)
    return Rule(source, program, signals, constant, required, flat, reads, whole)


def _flat(source: str, tokens: Sequence[str], names: Collection[str]) -> tuple[cel.Program | None, tuple[Read, ...]]:
    if bound(tokens).intersection(names):
        return None, ()
    flat, reads = flattened(source, names)
    try:
        compiled = cel.compile(flat)
        # A field that the tokens did not show would be read from where nothing is.
        return (None, ()) if set(names) & set(compiled.variables()) else (compiled, reads)
    except ValueError:  # where only a field may stand, as in `has(request.api)`
        return None, ()


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
        raise ConfigMistakes([Mistake((), f"not valid CEL at {where}: {problem}{_cel_writes(source)}")]) from None


def _cel_writes(source: str) -> str:
    """How CEL writes the operators that stand in a condition as other languages write them."""
    found = [token for token in dict.fromkeys(tokens_of(source)) if token.lower() in _CEL_WRITES]
    written = [f"`{_CEL_WRITES[token.lower()]}` for `{token}`" for token in found]
    return f"; CEL writes {', '.join(written)}" if written else ""


def _check(source: str, program: cel.Program, labels: Labels) -> list[str]:
    tokens = tokens_of(source)
    own = bound(tokens)
    known = {*labels, "request"}
    found = [
        f"unknown signal `{name}`{did_you_mean(name, known)}"
        for name in program.variables()
        if name not in known | own | TYPE_NAMES
    ]
    found += [
        f"unknown function `{name}`{did_you_mean(name, FUNCTIONS)}"
        for name in program.functions()
        if name.isidentifier() and not name.startswith("_") and name not in FUNCTIONS
    ]
    found += _check_fields(tokens, labels)
    example = _example(labels)
    if not own & known:
        found += mismatches(tokens, labels, example)
    return found or list(_try(program, example))


def _check_fields(tokens: list[str], labels: Labels) -> Iterator[str]:
    """Unknown fields of signals and of `request`, and signals that stand where one of their fields should."""
    request = request_fields(LlmRequest("", None, None, ""), "")
    padded = ["", *tokens, *[""] * 4]
    for i in range(len(tokens)):
        before, name, after, field, inside, text = padded[i : i + 6]
        if before == "." or after == "(":  # another thing's field, or a function that a signal is called like
            continue
        if name == "request" and after == "." and field not in request:
            yield f"`request` has no field `{field}`{did_you_mean(field, request)}"
        if name not in labels:
            continue
        if after == "." and field not in SIGNAL_FIELDS:
            yield f"a signal has no field `{field}`: `{name}` has label, confidence, value and scores"
        elif after not in (".", "[") and (before in _WANT_A_VALUE or after in _WANT_A_VALUE):
            yield _a_signal(name, labels[name])
        elif (after, field, inside) == (".", "scores", "[") and is_text(text):
            yield from unknown_label(name, labels[name], text_of(text))


def _a_signal(name: str, known: tuple[str, ...] | None) -> str:
    example = f', for instance with "{known[0]}"' if known else ""
    return f"`{name}` is a signal: compare `{name}.label`{example}"


def _example(labels: Labels) -> dict[str, Any]:
    """Made-up values for everything that a condition may read."""
    request = LlmRequest("chat_completions", "auto", None, "text", tokens=100, max_output_tokens=100)
    example: dict[str, Any] = {"request": request_fields(request, "auto")}
    for name, known in labels.items():
        label = known[0] if known else ""
        example[name] = signal_fields(SignalValue(label, 1.0, 0.5, dict.fromkeys(known or (), 0.5)))
    return example


def _try(program: cel.Program, example: Mapping[str, Any]) -> Iterator[str]:
    """Runs the condition once on made-up values: wrong types show then."""
    try:
        result = program.execute(dict(example))
    except TypeError as error:
        yield f"mixes types that do not go together: {shown(str(error).partition('. ')[0], 120)}"
    except RuntimeError as error:
        yield shown(error, 150)
    except Exception:  # noqa: BLE001  # a missing score, a division by zero: another request may well have a value
        return
    else:
        if not isinstance(result, bool):
            yield f"must be true or false, gives {shown(result)}"
