"""`hermes platform new NAME`: the skeleton of a plugin, with a test that passes, in a directory of its own."""

from __future__ import annotations

import argparse
import re
import sys
from importlib.resources import files
from pathlib import Path
from typing import Final

from hermes.cli.running import DONE, FAILED, home_of, printable

SKELETON: Final = "skeleton"
_NAME: Final = re.compile(r"[a-z][a-z0-9_-]{0,31}\Z")


def add_arguments(action: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    action.add_argument("name", help="of the platform: 1 to 32 of a-z, 0-9, _ and -, beginning with a letter")
    action.add_argument(
        "--into", type=Path, metavar="DIRECTORY", help="where the plugin's directory is made (default: here)"
    )


def run(arguments: argparse.Namespace) -> int:
    """Write the files; nothing that is there is touched."""
    name = arguments.name
    if not _NAME.match(name):
        print(
            f"hermes: {printable(name[:100])!r} is no name for a platform: 1 to 32 of a-z, 0-9, _ and -, beginning with a"
            " letter",
            file=sys.stderr,
        )
        return FAILED
    if (taken := _taken(name, arguments)) is not None:
        print(f"hermes: there is a platform {name} already: {printable(taken)}", file=sys.stderr)
        return FAILED
    place = (arguments.into or Path.cwd()) / f"hermes-{name}"
    try:
        place.mkdir(parents=True)
        for path, content in render(name).items():
            (place / path).parent.mkdir(exist_ok=True)
            (place / path).write_text(content, encoding="utf-8")
    except OSError as error:
        print(f"hermes: {printable(str(place))} cannot be written: {error.strerror or error}", file=sys.stderr)
        return FAILED
    print(f"{printable(str(place))} holds a platform that works, with a made-up service, and a test that passes.")
    print("Next: python -m pip install -e '.[test]' there, python -m pytest, and read its README.md")
    return DONE


def _taken(name: str, arguments: argparse.Namespace) -> str | None:
    from hermes.discovery import find_platforms

    found = find_platforms(home_of(arguments).path).get(name)
    return None if found is None else found.where


def render(name: str) -> dict[str, str]:
    """The files of a plugin, by their paths in its directory."""
    module = name.replace("-", "_")
    words = {
        "@NAME@": name,
        "@MODULE@": module,
        "@TITLE@": name.replace("-", " ").replace("_", " ").strip().capitalize(),
        "@VARIABLE@": module.upper(),
    }
    paths = {
        "pyproject.toml": "pyproject.toml",
        "README.md": "README.md",
        "platform.py": f"hermes_{module}.py",
        "test_platform.py": f"tests/test_{module}.py",
    }
    rendered = {}
    for template, path in paths.items():
        text = (files("hermes.cli") / SKELETON / f"{template}.txt").read_text(encoding="utf-8")
        for mark, word in words.items():
            text = text.replace(mark, word)
        rendered[path] = text
    return rendered
