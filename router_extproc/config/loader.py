"""router.yaml -> RouterConfig, with the line of every key, so that each mistake can be named as file:line: key.path."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel

from router_extproc.config.preferences import UserTable
from router_extproc.config.schema import RouterConfig
from router_extproc.errors import ConfigError, ConfigMistakes, Mistake
from router_extproc.validation import holds_keys, validate

FILE_NAME = "router.yaml"
MAX_BYTES = 1024 * 1024  # also what Kubernetes allows a ConfigMap
MAX_NODES = 200_000  # after aliases are expanded: a few lines of them can stand for billions
MAX_DEPTH = 64

KeyPath = tuple[str | int, ...]
M = TypeVar("M", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class LoadedConfig:
    """A valid router.yaml, where it came from (the file, symlinks resolved), and the SHA-256 of its bytes in hex.

    `users` is in the configuration already; `users_source` and `users_lines` say where it came from.
    """

    config: RouterConfig
    source: Path
    digest: str
    lines: dict[KeyPath, int] = field(repr=False)
    users_source: Path | None = None
    users_lines: dict[KeyPath, int] = field(default_factory=dict, repr=False)

    def line_of(self, path: KeyPath) -> int:
        """The line, from 1, of the key at `path`, or of the nearest thing around it."""
        return _line_of(self.lines, path)

    def mistake(self, path: KeyPath, message: str) -> str:
        """A message with its place: `file:line: key.path: message`."""
        return self.error([Mistake(path, message)]).mistakes[0]

    def error(self, mistakes: Sequence[Mistake]) -> ConfigError:
        """The error that names all of them, in the order of the file."""
        ours = [mistake for mistake in mistakes if not self._of_users(mistake)]
        theirs = [Mistake(mistake.path[1:], mistake.message) for mistake in mistakes if self._of_users(mistake)]
        found = _error(self.source, self.lines, ours).mistakes
        if self.users_source is not None:
            found += _error(self.users_source, self.users_lines, theirs).mistakes
        return ConfigError(found)

    def _of_users(self, mistake: Mistake) -> bool:
        return mistake.path[:1] == ("preferences",) and mistake.path[1:3] in self.users_lines


def locate(path: Path) -> Path:
    """The file to read: `path` itself, or router.yaml in that directory.

    A ConfigMap volume swaps its symlink `..data` at any time: it is resolved once, so that all reads see one version.
    """
    if not path.is_dir():
        return path
    data = path / "..data"
    return (data.resolve() if data.exists() else path) / FILE_NAME


def read(path: Path) -> tuple[Path, bytes]:
    """The file's resolved path and its bytes, at most 1 MiB. Raises ConfigError."""
    source = locate(path)
    try:
        with source.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise ConfigError([f"{source}: cannot be read: {error.strerror or error}"]) from None
    if len(content) > MAX_BYTES:
        raise ConfigError([f"{source}: is larger than {MAX_BYTES} bytes"])
    return source, content


def load(path: Path) -> LoadedConfig:
    """Reads and checks a file or a ConfigMap directory. Raises ConfigError with every mistake found."""
    source, content = read(path)
    return parse(content, source)


def parse(content: bytes, source: Path) -> LoadedConfig:
    """Checks the bytes of a router.yaml. `source` names it in messages; its users' file stands beside it.

    Raises ConfigError.
    """
    config, lines = parse_as(RouterConfig, content, source)
    preferences = config.preferences
    if preferences.users_file is None:
        return LoadedConfig(config, source, digest_of(content), lines)
    try:
        users_source, users_content = read(source.parent / preferences.users_file)
    except ConfigError as error:
        unread = [Mistake(("preferences", "users_file"), message) for message in error.mistakes]
        raise _error(source, lines, unread, partly=True) from None
    table, users_lines = parse_as(UserTable, users_content, users_source)
    twice = [Mistake(("users", name), "stands in router.yaml too") for name in table.users if name in preferences.users]
    if twice:
        raise _error(users_source, users_lines, twice, partly=True)
    both = preferences.model_copy(update={"users": {**preferences.users, **table.users}})
    config = config.model_copy(update={"preferences": both})
    return LoadedConfig(config, source, digest_of(content, users_content), lines, users_source, users_lines)


def digest_of(content: bytes, users: bytes = b"") -> str:
    """What changes when the configuration changes: SHA-256, in hex, of a router.yaml and of its users' file."""
    digest = hashlib.sha256(content)
    digest.update(users)
    return digest.hexdigest()


@lru_cache(maxsize=1)
def users_file_of(content: bytes) -> str | None:
    """The users' file that a router.yaml names, a name beside it. None without one, and in a file with mistakes, of
    which no users' file is read.

    The last answer is remembered: whoever watches a file asks again and again. From any thread.
    """
    try:
        return parse_as(RouterConfig, content, Path(FILE_NAME))[0].preferences.users_file
    except ConfigError:
        return None


def parse_as(model: type[M], content: bytes, source: Path) -> tuple[M, dict[KeyPath, int]]:
    """Checks YAML against any model: the value, and the line of every key. Raises ConfigError with every mistake."""
    try:
        text = content.decode("utf-8-sig")
        _check_depth(text, source)
        node = yaml.compose(text, _Loader)
    except UnicodeDecodeError as error:
        raise ConfigError([f"{source}: is not UTF-8 at byte {error.start}"]) from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark else 1
        words = ", ".join(part for part in (error.context, error.problem) if part)
        raise ConfigError([f"{source}:{line}: not valid YAML: {words}"]) from None
    except yaml.YAMLError as error:
        raise ConfigError([f"{source}: not valid YAML: {' '.join(str(error).split())[:200]}"]) from None
    if node is None:
        raise ConfigError([f"{source}: is empty"])
    document = _Document()
    try:
        data = document.build(node, (), 0)
        if document.mistakes:
            raise ConfigMistakes(document.mistakes)
        return validate(model, data), document.lines
    except ConfigMistakes as error:
        raise _error(source, document.lines, error.mistakes, partly=True) from None


def _check_depth(text: str, source: Path) -> None:
    """Raises ConfigError where collections stand in one another too deep, and YAMLError.

    To compose them, libyaml calls itself once per level, on the stack of C: some ten thousand end the process. Its
    events come one by one.
    """
    depth = 0
    for event in yaml.parse(text, _Loader):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        if depth > MAX_DEPTH + 1:
            line = event.start_mark.line + 1 if event.start_mark else 1
            raise ConfigError([f"{source}:{line}: more than {MAX_DEPTH} levels deep"])


class _Loader(yaml.CSafeLoader):
    """YAML 1.1 without the two readings that nobody means: `22:00` as a base-60 number, `2024-10-21` as a date."""


_COLLECTIONS = {"tag:yaml.org,2002:map", "tag:yaml.org,2002:seq"}
_SEXAGESIMAL = {"tag:yaml.org,2002:int", "tag:yaml.org,2002:float"}
_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in yaml.CSafeLoader.yaml_implicit_resolvers.items()
}


class _Document:
    """Turns YAML nodes into values and notes the line of each path; collects what the YAML itself has wrong."""

    def __init__(self) -> None:
        self.lines: dict[KeyPath, int] = {}
        self.mistakes: list[Mistake] = []
        self._left = MAX_NODES
        self._scalars = _Loader("")

    def build(self, node: yaml.Node, path: KeyPath, depth: int) -> Any:
        """The value of `node`, which stands at `path`. Raises ConfigMistakes when it is too large to go on."""
        self._enter(path, depth)
        self.lines.setdefault(path, node.start_mark.line + 1)
        if not isinstance(node, yaml.ScalarNode) and node.tag not in _COLLECTIONS:
            self._unusable(node, path)
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, path, depth)
        if isinstance(node, yaml.SequenceNode):
            return [self.build(item, (*path, index), depth + 1) for index, item in enumerate(node.value)]
        return self._scalar(node, path)

    def _enter(self, path: KeyPath, depth: int) -> None:
        self._left -= 1
        if depth > MAX_DEPTH:
            raise ConfigMistakes([Mistake(path, f"more than {MAX_DEPTH} levels deep (an alias inside itself?)")])
        if self._left < 0:
            raise ConfigMistakes([Mistake(path, f"more than {MAX_NODES} values (aliases of aliases?)")])

    def _mapping(self, node: yaml.MappingNode, path: KeyPath, depth: int) -> dict[str, Any]:
        values: dict[str, Any] = {}
        merged: list[yaml.Node] = []
        for key_node, value_node in node.value:
            line = key_node.start_mark.line + 1
            if key_node.tag == "tag:yaml.org,2002:merge":
                merged += value_node.value if isinstance(value_node, yaml.SequenceNode) else [value_node]
                continue
            key = key_node.value if isinstance(key_node, yaml.ScalarNode) else "?"
            here = (*path, key)
            if key in values:
                named = "a key" if holds_keys(here) else f"`{key}`"
                self.mistakes.append(Mistake(path, f"{named} stands twice: lines {self.lines[here]} and {line}"))
                continue
            self.lines.setdefault(here, line)
            if key_node.tag != "tag:yaml.org,2002:str":
                kind = key_node.tag.rpartition(":")[2]
                place, named = (path, "a key") if holds_keys(here) else (here, f"the key `{key}`")
                self.mistakes.append(Mistake(place, f"YAML reads {named} as {kind}, not text: put it in quotes"))
            values[key] = self.build(value_node, here, depth + 1)
        for base in merged:
            self._enter(path, depth + 1)
            if not isinstance(base, yaml.MappingNode):
                self.mistakes.append(Mistake(path, "`<<` takes mappings only"))
                continue
            for key, value in self._mapping(base, path, depth + 1).items():
                values.setdefault(key, value)
        return values

    def _scalar(self, node: yaml.Node, path: KeyPath) -> Any:
        if node.tag in _SEXAGESIMAL and ":" in node.value:
            return node.value
        try:
            return self._scalars.construct_object(node, deep=True)
        except (yaml.YAMLError, ValueError, LookupError, AttributeError, TypeError):
            # PyYAML's constructors trust a tag that the file gives: `!!int ""` is an IndexError, `!!bool x` a KeyError.
            self._unusable(node, path)
            return None

    def _unusable(self, node: yaml.Node, path: KeyPath) -> None:
        if holds_keys(path):
            self.mistakes.append(Mistake(path[:3], "the tag or value cannot be used here"))
            return
        tag = node.tag.removeprefix("tag:yaml.org,2002:")
        self.mistakes.append(Mistake(path, f"the tag or value `{tag}` cannot be used here"))


def _line_of(lines: dict[KeyPath, int], path: KeyPath) -> int:
    while path and path not in lines:
        path = path[:-1]
    return lines.get(path, 1)


def _placed(source: Path, lines: dict[KeyPath, int], mistake: Mistake) -> str:
    place = f"{source}:{_line_of(lines, mistake.path)}"
    key = ""
    for part in mistake.path:
        key += f"[{part}]" if isinstance(part, int) else f".{part}" if key else part
    return f"{place}: {key}: {mistake.message}" if key else f"{place}: {mistake.message}"


def _error(
    source: Path, lines: dict[KeyPath, int], mistakes: Sequence[Mistake], *, partly: bool = False
) -> ConfigError:
    ordered = sorted(mistakes, key=lambda mistake: _line_of(lines, mistake.path))
    return ConfigError([_placed(source, lines, mistake) for mistake in ordered], partly=partly)
