"""The example of docs/how-to/write-a-toolset.md is run, and what the pages say in numbers is true."""

from __future__ import annotations

import os
import re
import sys
import types
from pathlib import Path

import pytest

from hermes.settings import TerminalConfig
from hermes.signatures import MAX_ARGUMENTS, MAX_DEPTH
from hermes.tools import searcher, searching, terminal
from hermes.tools.files import FilesConfig
from hermes.toolset import MAX_RESULT

DOCS = Path(__file__).resolve().parents[2] / "docs"


async def test_the_example_works_as_it_is_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    blocks = re.findall(r"^```python\n(.*?)^```$", (DOCS / "how-to/write-a-toolset.md").read_text(), re.M | re.S)
    assert len(blocks) == 2
    module = types.ModuleType("the_example")
    monkeypatch.setitem(sys.modules, "the_example", module)  # dataclasses look their module up
    exec("\n".join(blocks), module.__dict__)
    assert module.DICE.name == "dice"
    await module.test_dice_are_added_up()


def test_the_numbers_of_the_explanation_are_those_of_the_code() -> None:
    text = (DOCS / "explanation/tools.md").read_text()
    assert (MAX_RESULT, MAX_ARGUMENTS, MAX_DEPTH) == (100_000, 2 * 2**20, 64)
    assert "over 100,000 characters" in text
    assert f"At most {TerminalConfig().max_commands} commands" in text
    assert f"killed after {FilesConfig().search_s:g} s" in text
    assert searcher.MAX_FILE_BYTES == 8 * 2**20
    assert searching.SEARCHER.name in os.listdir(searching.SEARCHER.parent)
    for name in (*terminal.PASSED_ON, *searcher.SKIPPED):
        assert f"`{name}`" in text, name
