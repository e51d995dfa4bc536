"""What a flag, or the environment variable that stands for it, may hold. Each type raises `BadValue` with a reason."""

from __future__ import annotations

import argparse
import math
import os
import re
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

_HOST_AND_PORT = re.compile(r"(\[[0-9A-Fa-f:.%]+\]|[^\s:/\[\]]+):([0-9]{1,5})")


class BadValue(ValueError, argparse.ArgumentTypeError):
    """Why a value cannot be used. argparse prints the reason, and the process ends with status 2."""


def host_and_port(text: str) -> tuple[str, int]:
    """Host (an IPv6 address stands in brackets, and is returned without) and port, 0 to 65535, of `HOST:PORT`."""
    found = _HOST_AND_PORT.fullmatch(text)
    if found is None or int(found[2]) > 65535:
        raise BadValue(f"{text!r} is not HOST:PORT")
    return found[1].strip("[]"), int(found[2])


def address(text: str) -> str:
    """`HOST:PORT`, as it stands."""
    host_and_port(text)
    return text


def address_or_socket(text: str) -> str:
    """`HOST:PORT` as it stands, or a Unix socket as `unix:/PATH`."""
    path = socket_path(text)
    if path is not None:
        return f"unix:{path}"
    try:
        return address(text)
    except BadValue:
        raise BadValue(f"{text!r} is neither HOST:PORT nor unix:/PATH") from None


def socket_path(text: str) -> str | None:
    """The path of a Unix socket, `unix:/PATH` or `/PATH`; None for anything else."""
    path = text.removeprefix("unix:")
    return path if path.startswith("/") else None


def whole(least: int, most: int) -> Callable[[str], int]:
    """Whole numbers from `least` to `most`."""

    def convert(text: str) -> int:
        if not re.fullmatch(r"[+-]?[0-9]{1,18}", text) or not least <= int(text) <= most:
            raise BadValue(f"{text!r} is not a whole number from {least} to {most}")
        return int(text)

    return convert


def number(least: float, most: float) -> Callable[[str], float]:
    """Numbers from `least` to `most`."""

    def convert(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not least <= value <= most:
            raise BadValue(f"{text!r} is not a number from {least:g} to {most:g}")
        return value

    return convert


def one_of(*names: str) -> Callable[[str], str]:
    """One of the names, in lower case."""

    def convert(text: str) -> str:
        if text.lower() not in names:
            raise BadValue(f"{text!r} is not {', '.join(names[:-1])} or {names[-1]}")
        return text.lower()

    return convert


def device(text: str) -> str:
    """Where a classifier runs: `auto`, `cpu`, `cuda`, or one of several GPUs as `cuda:1`."""
    if not re.fullmatch(r"auto|cpu|cuda(:[0-9]{1,3})?", text):
        raise BadValue(f"{text!r} is not cpu, cuda, cuda:NUMBER or auto")
    return text


def header(text: str) -> tuple[str, str]:
    """Name, in lower case as Envoy sends it, and value of `NAME=VALUE`."""
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise BadValue(f"{text!r} is not NAME=VALUE")
    return name.lower(), value


def from_environment(variable: str, kind: Callable[[str], T]) -> Callable[[str], T]:
    """`kind`, which names the variable where a bad value stands in it."""

    def convert(text: str) -> T:
        try:
            return kind(text)
        except BadValue as error:
            where = f" (in {variable})" if text == os.environ.get(variable) else ""
            raise BadValue(f"{error}{where}") from None

    return convert
