"""Reads a JSON object that arrives in chunks: exact, in bounded memory, without a Python loop over bytes.

numpy finds quotes and brackets, which is enough to know where values end; `json` decodes, and so validates, every
byte outside of what is left out. Decoded pieces are handed out as they complete:

- the scalars of the top-level object together, when a container begins or the object ends
- the elements of a top-level array in batches, one batch per block of input in which some became complete
- a top-level object whole

Each of these *runs* is decoded between brackets and a placeholder that stand for what was decoded before it
(`[""` + `, {"a": 1}` + `]`), so that commas are checked too. The placeholder is a string because nothing that precedes
or follows can be glued to it: after `0`, a malformed `.5` would read as a number.

Strings longer than about 64 KiB keep their head and tail, and base64 data only a short head: the middle is validated
and left out (an image of 40 MB is never held twice, let alone decoded).
"""

from __future__ import annotations

import json
import re
from collections import deque
from typing import Any, Final, NoReturn, Protocol

import numpy as np
import numpy.typing as npt

from router_extproc.apis.json_marks import Marks, excess, find_marks, safe_cut
from router_extproc.apis.long_string import HEAD, TAIL, Gap, LongString
from router_extproc.errors import BodyTooLarge, MalformedBody

LONG: Final = 4096
"""Strings up to this many bytes are taken as they come."""

MAX_DEPTH: Final = 128
"""Containers within containers, the body itself included. JSON schemas of real tools stay under 40."""

MAX_CONTAINERS: Final = 250_000
"""Objects and arrays in the whole body: decoding them is what takes time, 0.15 us each. A long session of an agent has
20,000."""

MAX_RUN: Final = 8 * 1024 * 1024
"""Bytes of one value (an element of an array, an object) after long strings were shortened. It is decoded at once."""

MAX_FIELDS: Final = 10_000
"""Top-level fields."""

BLOCK: Final = 256 * 1024
"""Bytes looked at at a time, so that the arrays of positions stay small whatever the chunk."""

_SPACE: Final = b" \t\n\r"
_MEMBER: Final = re.compile(
    rb'[ \t\n\r,]*("(?:[^"\\]++|\\.)*+")[ \t\n\r]*:[ \t\n\r]*("(?:[^"\\]++|\\.)*+"|[^", \t\n\r]++)', re.DOTALL
)


class Sink(Protocol):
    """Takes what the scanner decodes. Called within `feed` and `finish`; may raise MalformedBody."""

    def member(self, key: str, value: Any) -> None:
        """A top-level field that is not an array."""

    def elements(self, key: str, values: list[Any]) -> None:
        """The next elements of a top-level array; an empty list when the array is complete."""


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


_PAIRS: Final = json.JSONDecoder(object_pairs_hook=list, parse_constant=_refuse_constant)
_VALUES: Final = json.JSONDecoder(parse_constant=_refuse_constant)


class Scanner:
    """One body. Hands the fields named in `fields` to the sink, each of which may occur once; checks all others.

    `model_span` is set once the field `model` was read. For an estimate of tokens: `size` counts the bytes fed,
    `escaped` those by which sequences like `\\u00e9` are longer than the same characters in UTF-8, `ignored` those of
    large values of other fields without what `opaque` and `escaped` have of them.
    """

    def __init__(self, fields: frozenset[str], sink: Sink) -> None:
        self.model_span: tuple[int, int] | None = None
        self.size = 0
        self.ignored = 0
        self.escaped = 0
        self._fields = fields
        self._sink = sink
        self._seen: set[str] = set()
        self._field_count = 0
        self._container_count = 0
        self._carry = b""  # an escape or a character of which the rest is still to come
        self._offset = 0  # of the block in the body
        self._depth = 0
        self._in_string = False
        self._done = False
        self._key = ""  # of the container that is open
        self._array = False
        self._lead = b"{"
        self._run = bytearray()
        self._run_start = 0
        self._gaps: list[Gap] = []
        self._opened = 0  # what counts as text before the open container
        self._string = LongString(self._run)  # the one that is open

    @property
    def opaque(self) -> int:
        """Bytes of base64 data that were left out."""
        return self._string.opaque

    @property
    def full(self) -> int | None:
        """See `LongString.full`."""
        return self._string.full

    @property
    def complete(self) -> bool:
        """Whether the object has ended: nothing but blanks may follow."""
        return self._done and not self._carry

    def feed(self, chunk: bytes) -> None:
        """Takes the next bytes, however they are cut."""
        self.size += len(chunk)
        if len(chunk) <= BLOCK:
            self._block(chunk)
        else:
            for start in range(0, len(chunk), BLOCK):
                self._block(chunk[start : start + BLOCK])

    def finish(self) -> None:
        """Checks that the body is complete."""
        if not self.complete:
            raise MalformedBody("The request body is empty." if self.size == 0 else "The JSON body ends too early.")

    def unfinished(self) -> tuple[str, Any] | None:
        """The field whose string is still arriving, and its value (an array: its element) cut off there, else None.

        Costs a decoding of what is held of it. None too when the string is a key or the value is large.
        """
        if not self._in_string or self._depth == 0 or len(self._run) > 4 * (HEAD + TAIL):
            return None
        run = bytes(self._run)
        marks = find_marks(run, False)
        open_brackets = [self._lead[:1]]
        for index in np.flatnonzero(marks.steps):
            if marks.steps[index] > 0:
                open_brackets.append(run[marks.at[index] : marks.at[index] + 1])
            elif len(open_brackets) > 1:
                open_brackets.pop()
        closing = b"".join(b"}" if bracket == b"{" else b"]" for bracket in reversed(open_brackets))
        try:
            text = (self._lead + run + b'"' + closing).decode()
            if self._depth == 1:
                key, value = _PAIRS.decode(text)[-1]
                return (key, value) if key in self._fields else None
            value = _VALUES.decode(text)
        except ValueError:
            return None
        return self._key, value[-1] if self._array else value

    # --- one block -----------------------------------------------------------------------------------------------

    def _block(self, chunk: bytes) -> None:
        if self._carry:
            chunk = self._carry + chunk
        end = safe_cut(chunk, 0, len(chunk))
        self._carry = chunk[end:]
        data = chunk[:end] if end < len(chunk) else chunk
        if not data:
            return
        if self._in_string and b'"' not in data:
            self.escaped += excess(data)
            self._string.add(data, 0, end)
        else:
            self._marks(data)
        self._offset += end
        if len(self._run) > MAX_RUN:
            raise BodyTooLarge(
                f"One value of the body is over {MAX_RUN >> 20} MiB (long strings not counted).",
                param=self._key if self._depth >= 2 else None,
            )

    def _marks(self, data: bytes) -> None:
        marks = find_marks(data, self._in_string)
        at, steps, inside = marks.at, marks.steps, marks.inside
        depths = np.cumsum(steps, dtype=np.int32)
        depths += self._depth
        if len(depths) and int(depths.max()) > MAX_DEPTH:
            raise MalformedBody(f"The JSON body is nested deeper than {MAX_DEPTH} levels.")
        self._container_count += int(np.count_nonzero(steps > 0))
        if self._container_count > MAX_CONTAINERS:
            raise MalformedBody(f"The JSON body has more than {MAX_CONTAINERS} objects and arrays.")
        spans = self._string_spans(data, marks.quotes)
        outer = depths - (steps > 0)  # the level around a bracket
        bounds = np.flatnonzero((steps != 0) & (outer <= 1))
        last = -1
        position = 0
        for last in bounds.tolist():
            mark = int(at[last])
            self._take(data, position, mark, spans)
            self._bound(data[mark : mark + 1], mark, int(outer[last]), opens=bool(steps[last] > 0))
            position = mark + 1
        self._in_string = bool(inside[-1]) if len(inside) else self._in_string
        self._depth = int(depths[-1]) if len(depths) else self._depth
        if self._done:
            if data[position:].strip(_SPACE):
                raise MalformedBody("The request body goes on after the end of the JSON object.")
            return
        if self._depth == 0 and data.strip(_SPACE):
            raise MalformedBody("The request body is not a JSON object.")
        cut = self._complete_until(data, marks, depths, last + 1) if self._array and self._depth >= 2 else 0
        if cut > position:
            self._take(data, position, cut, spans)
            length = len(self._run)
            self._take(data, cut, len(data), spans)
            self._flush_elements(length, b"]")
        else:
            self._take(data, position, len(data), spans)

    def _string_spans(self, data: bytes, quotes: npt.NDArray[np.intp]) -> deque[tuple[int, int, bool]]:
        """(start, end, continued) of the strings that are long or that began before or end after this block."""
        spans: deque[tuple[int, int, bool]] = deque()
        if self._in_string:
            spans.append((0, int(quotes[0]) if len(quotes) else len(data), True))
        first = 1 if self._in_string else 0
        opening, closing = quotes[first::2], quotes[first + 1 :: 2]
        pairs = min(len(opening), len(closing))
        for index in np.flatnonzero(closing[:pairs] - opening[:pairs] > LONG).tolist():
            spans.append((int(opening[index]) + 1, int(closing[index]), False))
        if len(opening) > pairs:
            spans.append((int(opening[-1]) + 1, len(data), False))
        return spans

    def _take(self, data: bytes, start: int, end: int, spans: deque[tuple[int, int, bool]]) -> None:
        """Appends data[start:end] to the run, long strings shortened."""
        self.escaped += excess(data[start:end])
        while spans and spans[0][0] <= end and spans[0][1] <= end:
            string_start, string_end, continued = spans.popleft()
            if not continued:
                self._run += data[start:string_start]
                self._string.begin()
            self._string.add(data, string_start, string_end)
            if string_end < len(data):  # else it may go on in the next block
                self._gaps += self._string.end()
            start = string_end
        self._run += data[start:end]

    def _complete_until(self, data: bytes, marks: Marks, depths: npt.NDArray[np.int32], first: int) -> int:
        """Where in the block the last complete element of the open array ends; 0 when none does."""
        ends = np.flatnonzero((depths[first:] == 2) & (marks.inside[first:] == 0))
        cut = int(marks.at[first + ends[-1]]) + 1 if len(ends) else 0
        if self._depth == 2 and not self._in_string:
            after = int(marks.at[-1]) + 1 if len(marks.at) else 0
            cut = max(cut, data.rfind(b",", after))
        return cut

    # --- the outer two levels ------------------------------------------------------------------------------------

    def _bound(self, bracket: bytes, mark: int, outer: int, *, opens: bool) -> None:
        """A bracket around the body (`outer` is 0) or around the value of a top-level field (1)."""
        if self._done:
            raise MalformedBody("The request body goes on after the end of the JSON object.")
        if outer < 0 or (outer == 0 and opens and (bracket != b"{" or self._run.strip(_SPACE))):
            raise MalformedBody("The request body is not a JSON object.")
        if opens and outer == 0:
            self._restart(b"{", mark)
        elif opens:
            self._flush_members(b'""}', opens=True)
            self._array = bracket == b"["
            self._restart(bracket, mark)
            self._opened = self._text(mark)
        elif outer == 1:
            if self._key not in self._fields:
                self.ignored += self._text(mark) - self._opened
            if self._array:
                self._flush_elements(len(self._run), bracket)
                self._deliver_elements([])
            else:
                value = self._decode(_VALUES, bytes(self._run) + bracket)
                if self._key in self._fields:
                    self._sink.member(self._key, value)
            self._array = False
            self._restart(b'{"":""', mark)
        else:
            self._flush_members(bracket, opens=False)
            self._done = True
            self._restart(b"", mark)

    def _text(self, mark: int) -> int:
        """Bytes before a mark of the block that count as text, wherever they stand."""
        return self._offset + mark - self.opaque - self.escaped

    def _restart(self, lead: bytes, mark: int) -> None:
        self._lead = lead
        self._run.clear()
        self._gaps.clear()
        self._run_start = self._offset + mark + 1

    def _flush_elements(self, length: int, closing: bytes) -> None:
        values = self._decode(_VALUES, bytes(self._run[:length]) + closing)
        if self._lead != b"[":
            del values[0]
        if values:
            self._lead = b'[""'
        del self._run[:length]
        self._string.start -= length
        if values:
            self._deliver_elements(values)

    def _deliver_elements(self, values: list[Any]) -> None:
        if self._key in self._fields:
            self._sink.elements(self._key, values)

    def _flush_members(self, closing: bytes, *, opens: bool) -> None:
        first = self._lead == b"{"
        run = bytes(self._run)
        pairs: list[tuple[str, Any]] = self._decode(_PAIRS, run + closing)
        if not first:
            del pairs[0]
        self._field_count += len(pairs)
        if self._field_count > MAX_FIELDS:
            raise MalformedBody(f"The JSON body has more than {MAX_FIELDS} fields.")
        for key, _ in pairs:
            if key in self._fields:
                if key in self._seen:
                    raise MalformedBody(f"The field '{key}' occurs twice.", param=key)
                self._seen.add(key)
        if opens:
            self._key = pairs.pop()[0]
        if self._gaps or any(key == "model" for key, _ in pairs):
            self._locate(run)
        for key, value in pairs:
            if key in self._fields:
                self._sink.member(key, value)

    def _locate(self, run: bytes) -> None:
        """Finds in a run of valid members the span of the model, and the long strings that do not count."""
        gaps = deque(self._gaps)
        missing = 0
        for member in _MEMBER.finditer(run):
            key = json.loads(member[1]) if b"\\" in member[1] else member[1][1:-1].decode()
            start, end = member.span(2)
            while gaps and gaps[0].position < start:  # in a key
                missing += gaps.popleft().missing
            if key == "model":
                self.model_span = self._run_start + start + missing, self._run_start + end + missing
            lost = []
            while gaps and gaps[0].position < end:
                lost.append(gaps.popleft())
            missing += sum(gap.missing for gap in lost)
            if lost and key not in self._fields:
                missed = sum(gap.missing - gap.opaque - gap.escaped for gap in lost)
                self.ignored += end - start - excess(run[start:end]) + missed

    def _decode(self, decoder: json.JSONDecoder, body: bytes) -> Any:
        try:
            text = (self._lead + body).decode()
            return decoder.decode(text)
        except UnicodeDecodeError:
            raise MalformedBody("The request body is not valid UTF-8.") from None
        except json.JSONDecodeError as error:
            raise MalformedBody(f"The request body is not valid JSON: {error.msg}.") from None
        except ValueError as error:  # NaN, an integer of thousands of digits
            raise MalformedBody(f"The request body is not valid JSON: {error}.") from None
