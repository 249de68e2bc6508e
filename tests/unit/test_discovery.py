"""Platforms are found by name and loaded when they are used; what cannot be loaded is told, and hurts nobody else."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from hermes.discovery import BadPlugin, find_platforms

SPEC = """
from __future__ import annotations
from dataclasses import dataclass
from hermes.platform import Capabilities, PlatformSpec, Secret, setting

@dataclass(frozen=True, slots=True)
class Config:
    token: Secret = setting(about="x")

platform = PlatformSpec(name="{name}", config=Config, capabilities=Capabilities(), secrets=("token",), help="h", open=None)
"""


def package(folder: Path, module: str, name: str, text: str = SPEC) -> None:
    """An installed package with one entry point."""
    about = folder / f"{module}-1.dist-info"
    about.mkdir(parents=True)
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module}\nVersion: 1\n")
    (about / "entry_points.txt").write_text(f"[hermes.platforms]\n{name} = {module}:platform\n")
    (folder / f"{module}.py").write_text(text.replace("{name}", name))


def plugin(home: Path, name: str, text: str = SPEC) -> Path:
    """A file in a home."""
    folder = home / "plugins" / "platforms"
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{name}.py"
    file.write_text(text.replace("{name}", name))
    for each in (file, folder, folder.parent):
        each.chmod(0o700)
    return file


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where packages are installed."""
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.syspath_prepend(str(folder))
    return folder


def test_a_package_is_found_without_being_imported(site: Path, tmp_path: Path) -> None:
    package(site, "quite_new_package", "parlour")
    found = find_platforms(tmp_path)["parlour"]
    assert "quite_new_package" not in sys.modules
    assert found.where == "the package quite_new_package"
    assert found.load().name == "parlour"
    assert find_platforms(tmp_path)["telegram"].load().name == "telegram"


def test_a_file_wins_over_a_package_and_says_so(site: Path, tmp_path: Path) -> None:
    package(site, "hidden_package", "parlour", "1 / 0")
    file = plugin(tmp_path, "parlour")
    found = find_platforms(tmp_path)["parlour"]
    assert found.where == f"{file} (in place of the package hidden_package)"
    assert found.load().name == "parlour"


def test_two_packages_with_one_name_are_both_named_and_neither_is_used(site: Path, tmp_path: Path) -> None:
    package(site, "one_package", "parlour")
    package(site, "other_package", "parlour")
    found = find_platforms(tmp_path)["parlour"]
    with pytest.raises(BadPlugin, match="both called parlour"):
        found.load()
    assert {"one_package", "other_package"} <= set(found.where.split())


def test_the_same_package_seen_twice_is_one(site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package(site, "seen_twice", "parlour")
    again = tmp_path / "again"
    package(again, "seen_twice", "parlour")
    monkeypatch.syspath_prepend(str(again))
    assert find_platforms(tmp_path)["parlour"].load().name == "parlour"


@pytest.mark.parametrize("loose", ["the file", "its folder", "the folder above"])
def test_what_others_can_write_is_not_run(loose: str, tmp_path: Path) -> None:
    file = plugin(tmp_path, "parlour", "raise SystemExit('it was run')")
    {"the file": file, "its folder": file.parent, "the folder above": file.parent.parent}[loose].chmod(0o777)
    with pytest.raises(BadPlugin, match="written by others"):
        find_platforms(tmp_path)["parlour"].load()


def test_a_file_that_fails_leaves_no_half_of_itself(tmp_path: Path) -> None:
    plugin(tmp_path, "half", SPEC + "\n1 / 0\n")
    plugin(tmp_path, "whole")
    found = find_platforms(tmp_path)
    with pytest.raises(BadPlugin, match="ZeroDivisionError"):
        found["half"].load()
    assert "hermes_plugin_half" not in sys.modules
    assert found["whole"].load().config.__module__ == "hermes_plugin_whole"
    del sys.modules["hermes_plugin_whole"]


def test_a_file_is_run_again_only_when_it_was_changed(tmp_path: Path) -> None:
    file = plugin(tmp_path, "steady")
    first = find_platforms(tmp_path)["steady"].load()
    assert find_platforms(tmp_path)["steady"].load() is first
    file.write_text(SPEC.replace("{name}", "steady") + "# changed\n")
    assert find_platforms(tmp_path)["steady"].load() is not first
    del sys.modules["hermes_plugin_steady"]


@pytest.mark.parametrize("version", [0, 2])
def test_a_platform_for_another_contract_is_refused_by_name(tmp_path: Path, version: int) -> None:
    plugin(tmp_path, "parlour", SPEC.replace("open=None", f"open=None, contract={version}"))
    with pytest.raises(BadPlugin, match=f"version {version} of the platform contract; this is version 1"):
        find_platforms(tmp_path)["parlour"].load()
