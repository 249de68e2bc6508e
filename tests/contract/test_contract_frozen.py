"""The platform contract is what its page says, line by line: it changes in no way that a platform might notice unseen."""

from __future__ import annotations

from pathlib import Path

from hermes import platform
from hermes.testing.contract_surface import surface

PAGE = Path(__file__).resolve().parents[2] / "docs" / "reference" / "platform-contract.md"


def test_the_surface_is_the_one_that_was_promised() -> None:
    """If this fails, see the page's "What may change, and how" first; then change the page with the code."""
    shown = PAGE.read_text().partition("```text\n")[2].partition("\n```")[0]
    assert surface() == shown.splitlines()


def test_the_page_names_the_version() -> None:
    assert PAGE.read_text().startswith(f"# The platform contract, version {platform.CONTRACT}\n")
