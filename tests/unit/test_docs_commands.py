"""Commands on the pages: each is one that the command line takes, with files that are there."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from router_extproc.cli import _parser, main

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "examples" / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def commands(page: Path) -> list[str]:
    """Lines of code blocks that begin with our command, without what the shell does with them."""
    blocks = re.findall(r"^```(?:bash)?\n(.*?)^```|^((?: {4}.*\n)+)", page.read_text(encoding="utf-8"), re.M | re.S)
    lines = [line.strip() for pair in blocks for line in "".join(pair).splitlines()]
    return [line for line in lines if re.match(r"(\.venv/bin/)?router-extproc ", line)]


SHOWN = [(page.name, line) for page in PAGES for line in commands(page)]


@pytest.mark.parametrize(("page", "line"), SHOWN)
def test_a_command_on_a_page_is_one(page: str, line: str) -> None:
    words = shlex.split(line.partition(" > ")[0], comments=True)
    _parser().parse_args(words[1:])
    for word in words:
        if word.startswith(("examples/", "models/")):
            assert (ROOT / word).exists(), word


def test_the_commands_of_the_readme_run_where_it_says(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(ROOT)
    [check] = [
        line for page, line in SHOWN if page == "README.md" and line.startswith(".venv/bin/router-extproc check")
    ]
    assert main(shlex.split(check)[1:]) == 0
    assert "ok, 4 models" in capsys.readouterr().out


def test_the_pages_show_commands() -> None:
    assert {"check", "explain", "serve", "envoy"} <= {shlex.split(line)[1] for _, line in SHOWN}
