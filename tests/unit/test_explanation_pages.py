"""The explanation pages agree with the code they explain: orders, states, files, rules and links."""

from __future__ import annotations

import ast
import configparser
import functools
import re
import shlex
from pathlib import Path
from typing import get_args

import pytest

from hermes.agent.loop import PARALLEL_CALLS
from hermes.cli import COMMANDS, build_parser
from hermes.cli.running import CONFIGURATION, DONE, FAILED, HELD
from hermes.intake import FINAL_ROW_STATES, Mode, RowState
from hermes.observe.watchdog import BEHIND_S
from hermes.schema import ENDPOINT, MODEL, SECTIONS
from hermes.settings import RetentionConfig, SessionsConfig, ShutdownConfig
from hermes.store.turns import MAX_ATTEMPTS, RESUME_GAP

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = DOCS / "explanation"


def page(name: str) -> str:
    return (PAGES / name).read_text(encoding="utf-8")


def code_block(text: str, begins: str) -> str:
    """The first block of the page that begins with these words."""
    return next(
        each for each in re.findall(r"^```\w*\n(.*?)^```$", text, re.MULTILINE | re.DOTALL) if each.startswith(begins)
    )


# --- lifetimes.md


def nest() -> list[str]:
    """What `open_gateway` enters, in its order."""
    tree = ast.parse((ROOT / "hermes" / "gateway.py").read_text(encoding="utf-8"))
    opener = next(each for each in tree.body if isinstance(each, ast.AsyncFunctionDef) and each.name == "open_gateway")
    outer = next(each for each in opener.body if isinstance(each, ast.AsyncWith))
    inner = next(each for each in outer.body if isinstance(each, ast.With))
    calls = [each.context_expr for each in (*outer.items, *inner.items)]
    return [ast.unparse(each.func).rpartition(".")[2] for each in calls if isinstance(each, ast.Call)]


def test_the_tree_of_lifetimes_is_the_nesting_of_the_gateway() -> None:
    tree = code_block(page("lifetimes.md"), "open_signals").splitlines()
    assert [re.sub(r"^[ └]+", "", line).split()[0] for line in tree] == nest()
    assert [len(line) - len(line.lstrip(" └")) for line in tree] == [2 * depth for depth in range(len(tree))]


def test_each_lifetime_says_what_entered_and_left_mean() -> None:
    assert re.findall(r"^\| `(\w+)` \| .+ \| .+ \|$", page("lifetimes.md"), re.MULTILINE) == nest()


# --- message-path.md


def table(text: str, heading: str) -> list[list[str]]:
    """The cells of the first table under a heading, without its head."""
    section = text.partition(f"## {heading}\n")[2].partition("\n## ")[0]
    rows = [line.strip("|").split("|") for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in row] for row in rows[2:]]


def test_every_state_of_a_row_is_in_the_table() -> None:
    rows = table(page("message-path.md"), "The states of a row")
    assert [cells[0].strip("`") for cells in rows] == list(get_args(RowState))
    assert [cells[0].strip("`") for cells in rows][2:] == list(FINAL_ROW_STATES)
    assert all(len(cells) == 3 and all(cells) for cells in rows)


def test_every_mode_is_explained() -> None:
    assert [cells[0].strip("`") for cells in table(page("message-path.md"), "Who waits")] == list(get_args(Mode))


def test_the_numbers_of_the_path_are_the_code_s() -> None:
    text = page("message-path.md")
    sessions, retention = SessionsConfig(), RetentionConfig()
    for name, value in (
        ("sessions.max_queued", sessions.max_queued), ("sessions.max_live", sessions.max_live),
        ("sessions.sweep_s", sessions.sweep_s), ("retention.sweep_s", retention.sweep_s),
    ):  # fmt: skip
        assert f"`{name}` ({value:g})" in text
    assert (PARALLEL_CALLS, RESUME_GAP, MAX_ATTEMPTS) == (8, 1_000_000, 2)


# --- all pages


def names_in_code(text: str) -> set[str]:
    return set(re.findall(r"`([a-z_]+\.[a-z_]+)`", re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)))


@pytest.mark.parametrize("path", sorted(PAGES.glob("*.md")), ids=lambda path: path.stem)
def test_settings_and_files_that_a_page_names_exist(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    keys = {f"{section}.{key}" for section, (_, rules) in SECTIONS.items() for key in rules}
    keys |= {f"model.{key}" for key in (*ENDPOINT, *MODEL)}
    asked = {name for name in names_in_code(text) if name.partition(".")[0] in {*SECTIONS, "model"}}
    ours = {each.name for each in (ROOT / "hermes").rglob("*.py")}
    wrong = {name for name in asked - keys if name not in ours and not is_event(name)}
    assert wrong == set()
    assert [
        name
        for name in re.findall(r"`(?:tests|hermes|platforms)/[\w/]+\.py`", text)
        if not (ROOT / name.strip("`")).is_file()
    ] == []


@functools.cache
def all_code() -> str:
    return "".join(path.read_text(encoding="utf-8") for path in (ROOT / "hermes").rglob("*.py"))


def is_event(name: str) -> bool:
    """Whether the code logs an event of this name."""
    return f'"{name}"' in all_code()


def links(path: Path) -> list[str]:
    text = re.sub(r"^```.*?^```$", "", path.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    return [each for each in re.findall(r"\]\(([^)\s]+)\)", text) if "://" not in each]


def anchors(path: Path) -> set[str]:
    heads = re.findall(r"^#+ (.+)$", path.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


@pytest.mark.parametrize("path", sorted(DOCS.rglob("*.md")), ids=lambda path: str(path.relative_to(DOCS)))
def test_links_lead_somewhere(path: Path) -> None:
    for link in links(path):
        name, _, anchor = link.partition("#")
        target = (path.parent / name).resolve() if name else path
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


# --- how-to/run-as-a-service.md, how-to/back-up.md


def units(name: str) -> list[dict[str, dict[str, str]]]:
    """The unit files of a how-to page: section -> name -> value."""
    text = (DOCS / "how-to" / name).read_text(encoding="utf-8")
    found = []
    for block in re.findall(r"^```ini\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        parser = configparser.ConfigParser(interpolation=None, strict=True)
        parser.optionxform = str  # type: ignore[assignment,method-assign]
        parser.read_string(block)
        found.append({section: dict(parser[section]) for section in parser.sections()})
    return found


def test_the_unit_leaves_the_gateway_its_own_deadline() -> None:
    (unit,) = units("run-as-a-service.md")
    service, shutdown = unit["Service"], ShutdownConfig()
    assert int(service["TimeoutStopSec"]) > shutdown.total_s + shutdown.watchdog_s + BEHIND_S
    assert (service["Type"], service["KillMode"], service["RestartPreventExitStatus"]) == (
        "notify",
        "mixed",
        str(CONFIGURATION),
    )
    assert (
        int(service["WatchdogSec"]) > 10
    )  # a loop is called stuck after ten seconds, with its stacks; that comes first
    assert {"StartLimitIntervalSec", "StartLimitBurst"} <= set(unit["Unit"])


def test_the_commands_of_the_units_are_commands() -> None:
    (serve,), (backup, timer) = units("run-as-a-service.md"), units("back-up.md")
    asked = build_parser(list(COMMANDS)).parse_args(serve["Service"]["ExecStart"].split()[1:])
    assert (asked.command, asked.quiet, asked.home) == ("serve", True, Path("/var/lib/hermes"))
    line = shlex.split(backup["Service"]["ExecStart"])
    inner = shlex.split(line[2].replace("$(date +%%Y%%m%%d-%%H%%M%%S)", "now"))
    asked = build_parser(list(COMMANDS)).parse_args(inner[2:])
    assert (asked.command, asked.file) == ("backup", Path("/var/lib/hermes-backup/now.db"))
    assert timer["Timer"]["OnCalendar"]


def test_every_exit_code_of_a_gateway_is_explained() -> None:
    text = (DOCS / "how-to" / "run-as-a-service.md").read_text(encoding="utf-8")
    codes = {int(cells[0]) for cells in table(text, "3. What an exit code means")}
    assert codes == {DONE, FAILED, HELD, CONFIGURATION}


# --- house.md


def test_every_file_and_package_has_its_job() -> None:
    text = page("house.md")
    files = [cells[0].strip("`") for cells in table(text, "Files")]
    assert files == sorted(path.name for path in (ROOT / "hermes").glob("*.py"))
    packages = [cells[0].strip("`") for cells in table(text, "Packages")]
    assert packages == sorted(f"hermes/{path.parent.name}" for path in (ROOT / "hermes").glob("*/__init__.py"))


@pytest.mark.parametrize("platform", sorted(each.parent.name for each in (ROOT / "platforms").glob("*/__init__.py")))
def test_a_platform_s_page_says_what_each_of_its_files_does(platform: str) -> None:
    text = page({"webhook": "webhooks"}.get(platform, platform) + ".md")
    files = {each.name for each in (ROOT / "platforms" / platform).glob("*.py")} - {"__init__.py"}
    assert not {each for each in files if f"`{each}`" not in text}


def test_the_layers_are_those_that_are_checked() -> None:
    contract = configparser.ConfigParser()
    contract.read_string((ROOT / ".importlinter").read_text(encoding="utf-8"))
    layers = contract["importlinter:contract:layers"]["layers"].split("\n")
    assert code_block(page("house.md"), "hermes.cli").splitlines() == [each.strip() for each in layers if each.strip()]


# --- cancellation.md


def test_every_matrix_is_named() -> None:
    text = page("cancellation.md")
    matrices = {f"tests/cancellation/{path.name}" for path in (ROOT / "tests" / "cancellation").glob("test_*.py")}
    assert {cells[1].strip("`") for cells in table(text, "How it is proven")} == matrices


# --- README.md


def test_the_index_has_every_page() -> None:
    index = DOCS / "README.md"
    linked = {(DOCS / each).resolve() for each in links(index)}
    generated = {DOCS / "reference" / "proof.md"}
    assert {path.resolve() for path in set(DOCS.rglob("*.md")) - generated - {index}} <= linked
