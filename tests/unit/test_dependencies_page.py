"""What is imported is declared, what is declared is explained, and what is said to be unused is."""

from __future__ import annotations

import ast
import functools
import re
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "explanation" / "dependencies.md").read_text(encoding="utf-8")
MODULES = {  # distributions whose module has another name
    "PyYAML": "yaml",
    "trio-websocket": "trio_websocket",
    "markdown-it-py": "markdown_it",
}
OURS = {"hermes", "platforms"}


def declared() -> list[str]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    found = [re.match(r"[A-Za-z0-9._-]+", each) for each in project["dependencies"]]
    return [each.group() for each in found if each is not None]


@functools.cache
def imported() -> set[str]:
    """Top-level modules of other people that our code imports anywhere, in a function or for types, too."""
    names: set[str] = set()
    for path in (each for package in OURS for each in (ROOT / package).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                names |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level:
                names.add((node.module or "").partition(".")[0])
    return names - set(sys.stdlib_module_names) - OURS


def rows() -> dict[str, str]:
    """Package -> its row in the table of dependencies."""
    section = PAGE.partition("## What we depend on")[2].partition("\n## ")[0]
    return {found.group(1): line for line in section.splitlines() if (found := re.match(r"\| `([\w.-]+)` \|", line))}


def test_what_is_imported_is_declared() -> None:
    assert {"trio", "outcome", "httpcore2", "yaml"} <= imported()
    assert imported() - {MODULES.get(name, name) for name in declared()} == set()


def test_every_dependency_is_explained_and_nothing_else() -> None:
    assert sorted(rows()) == sorted(declared())


def test_what_is_said_to_be_unused_is_unused() -> None:
    unused = {name for name, row in rows().items() if "**nothing yet**" in row}
    assert unused == {name for name in declared() if MODULES.get(name, name) not in imported()}


def test_what_we_wrote_is_where_the_page_says() -> None:
    own = PAGE.partition("## What we wrote ourselves")[2]
    places = re.findall(r"`(hermes/[\w/.]+)`", own)
    assert len(places) > 12
    assert [place for place in places if not (ROOT / place).exists()] == []


def test_the_measurements_come_first_and_can_be_repeated() -> None:
    assert re.findall(r"^## (.+)$", PAGE, re.MULTILINE)[0] == "The two measurements that decided the HTTP client"
    (script,) = re.findall(r"(tests/benchmarks/\w+\.py)", PAGE)
    assert (ROOT / script).is_file()
