"""The rules of the house, read from the source: sizes, bounds, who may import what, where errors may be caught broadly."""

from __future__ import annotations

import ast
import functools
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("hermes", "platforms")
MOST_LINES_OF_A_FILE = 500
MOST_LINES_OF_A_FUNCTION = 60
MOST_METHODS_OF_A_PROTOCOL = 7

# A broad catch that does not raise again stands at one of the five boundaries, and here.
BOUNDARIES = {
    ("hermes/turn.py", "Turn.run"): "turn",
    ("hermes/toolset.py", "run_tool"): "tool call",
    ("hermes/containment.py", "contained"): "supervised account",
    ("hermes/http/api/app.py", "Api.__call__"): "HTTP request",
    ("hermes/http/listener/connection.py", "Connection._exchange_with"): "HTTP request",
    ("hermes/discovery.py", "_loader.checked"): "plugin hook",
    ("hermes/delivery/lane.py", "Lane._attempt"): "plugin hook",
    ("hermes/delivery/live.py", "LiveReply._show"): "plugin hook",
    ("hermes/delivery/receipts.py", "Receipts._one"): "plugin hook",
    ("hermes/delivery/signs.py", "Typing._show"): "plugin hook",
    ("hermes/fetching.py", "Fetcher._store_bytes"): "plugin hook",
    ("hermes/platform_config.py", "_mistakes"): "plugin hook",
    # The kit for tests: what a scenario raises is its finding.
    ("hermes/testing/cancellation.py", "_run.run"): "test",
    ("hermes/testing/cancellation.py", "_checked"): "test",
    ("hermes/testing/clauses/bench.py", "Bench.outcome.run"): "test",
    ("hermes/testing/clauses/translation.py", "_translated"): "test",
    ("hermes/testing/clauses/translation.py", "pure_translation"): "test",
}

# Library -> the only places that may import it while running (an import for types alone binds nothing).
DOORS = {
    "aiosqlite": ("hermes/store/connection.py",),
    "sqlite3": ("hermes/store/", "hermes/testing/messaging_process.py"),
    "httpx2": ("hermes/net/", "hermes/testing/"),
    "httpcore2": ("hermes/net/", "hermes/testing/"),
    "trio_websocket": ("hermes/net/", "hermes/testing/"),
    "openai": ("hermes/agent/",),
    "starlette": ("hermes/http/api/",),
    "httptools": ("hermes/http/listener/", "hermes/net/http1.py", "hermes/control_client.py", "hermes/testing/"),
    "markdown_it": ("hermes/rendering/parsing.py",),
    "yaml": ("hermes/yamltree.py", "hermes/cli/"),
    "asyncio": (),
    "anyio": (),
    "pickle": (),
    "requests": (),
    "httpx": (),
}

# A secret's value is taken out where it is sent, compared or redacted.
REVEALED_IN = {
    "hermes/agent/clients.py",
    "hermes/agent/model.py",
    "hermes/config.py",
    "hermes/doors.py",
    "hermes/observe/logs.py",
    "hermes/observe/redact.py",
    "hermes/token_lock.py",
    "platforms/discord/gateway.py",
    "platforms/discord/rest.py",
}


@dataclass(frozen=True, eq=False)
class Source:
    """A module's path from the root of the repository, its text and its tree."""

    path: str
    text: str
    tree: ast.Module

    def named(self) -> Iterator[tuple[str, ast.AST]]:
        """Every node with the qualified name of what it is inside of."""
        waiting: list[tuple[str, ast.AST]] = [("", self.tree)]
        while waiting:
            name, node = waiting.pop()
            yield name, node
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                name = f"{name}.{node.name}".lstrip(".")
            waiting.extend((name, child) for child in ast.iter_child_nodes(node))


@functools.cache
def sources() -> tuple[Source, ...]:
    found = []
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            text = path.read_text(encoding="utf-8")
            found.append(Source(path.relative_to(ROOT).as_posix(), text, ast.parse(text)))
    assert len(found) > 20
    return tuple(found)


@functools.cache
def imports(source: Source) -> tuple[str, ...]:
    """The modules that are imported when the code runs."""
    return tuple(imported(source))


def imported(source: Source) -> Iterator[str]:
    for_types = {
        id(inner)
        for node in ast.walk(source.tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        for body in node.body
        for inner in ast.walk(body)
    }
    for node in ast.walk(source.tree):
        if id(node) in for_types:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{source.path}:{node.lineno}: imports are absolute"
            yield node.module or ""
        elif (
            isinstance(node, ast.Call)
            and ast.unparse(node.func).endswith(("import_module", "__import__"))
            and node.args
            and isinstance(node.args[0], ast.Constant)
        ):
            yield str(node.args[0].value)
        elif isinstance(node, ast.Call) and any(ast.unparse(part).endswith("import_module") for part in node.args):
            yield from (str(part.value) for part in node.args if isinstance(part, ast.Constant))


def breaches(found: Iterator[str] | list[str]) -> None:
    lines = sorted(found)
    assert not lines, "\n  " + "\n  ".join(lines)


# --- sizes -----------------------------------------------------------------------------------------------------------


def test_files_and_functions_are_small() -> None:
    found = []
    for source in sources():
        if (lines := len(source.text.splitlines())) > MOST_LINES_OF_A_FILE:
            found.append(f"{source.path}: {lines} lines")
        for _, node in source.named():
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                length = (node.end_lineno or 0) - node.lineno + 1
                if length - inner_lines(node) > MOST_LINES_OF_A_FUNCTION:
                    found.append(f"{source.path}:{node.lineno}: {node.name} has {length} lines")
    breaches(found)


def inner_lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines of functions defined inside, which are counted by themselves, and of the docstring, which is for users."""
    inner = sum(
        (node.end_lineno or 0) - node.lineno + 1
        for node in function.body
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    )
    first = function.body[0]
    if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and isinstance(first.value.value, str):
        inner += (first.end_lineno or 0) - first.lineno + 1
    return inner


def test_protocols_are_narrow() -> None:
    found = []
    for source in sources():
        for _, node in source.named():
            if isinstance(node, ast.ClassDef) and any("Protocol" in ast.unparse(base) for base in node.bases):
                methods = [item for item in node.body if isinstance(item, ast.FunctionDef | ast.AsyncFunctionDef)]
                if len(methods) > MOST_METHODS_OF_A_PROTOCOL:
                    found.append(f"{source.path}: {node.name} has {len(methods)} methods")
    breaches(found)


# --- bounds and state ------------------------------------------------------------------------------------------------


def test_every_channel_has_a_bound() -> None:
    breaches(
        f"{source.path}:{node.lineno}: {ast.unparse(node)}"
        for source in sources()
        for node in ast.walk(source.tree)
        if isinstance(node, ast.Call)
        and "open_memory_channel" in ast.unparse(node.func)
        and (not node.args or "inf" in ast.unparse(node.args[0]))
    )


def test_no_cache_without_a_bound() -> None:
    breaches(
        f"{source.path}:{node.lineno}: {ast.unparse(node)}"
        for source in sources()
        for _, function in source.named()
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef)
        for node in function.decorator_list
        if re.search(r"\b(functools\.)?cache$|lru_cache\(maxsize=None|lru_cache\(None", ast.unparse(node))
        and function.args.args
    )


def test_no_module_holds_state_that_changes() -> None:
    """Module-level names are constants: nothing is rebound, and no empty container waits to be filled."""
    found = []
    for source in sources():
        for node in source.tree.body:
            value = getattr(node, "value", None)
            empty = isinstance(value, ast.Dict | ast.List | ast.Set) and not ast.unparse(value).strip("{}[]")
            made = isinstance(value, ast.Call) and re.fullmatch(
                r"(dict|list|set|defaultdict|deque|Counter|OrderedDict|WeakKeyDictionary|WeakValueDictionary|WeakSet"
                r"|collections\.\w+|weakref\.\w+|ContextVar|contextvars\.ContextVar|RunVar|trio\.lowlevel\.RunVar"
                r"|threading\.\w+|trio\.\w*(Event|Lock|Semaphore|Limiter))(\[.*\])?",
                ast.unparse(value.func),
            )
            if isinstance(node, ast.Assign | ast.AnnAssign) and (empty or made):
                found.append(f"{source.path}:{node.lineno}: {ast.unparse(node)[:80]}")
        found += [
            f"{source.path}:{node.lineno}: global" for node in ast.walk(source.tree) if isinstance(node, ast.Global)
        ]
    breaches(found)


def test_the_environment_is_read_in_one_file() -> None:
    breaches(
        f"{source.path}:{node.lineno}: {ast.unparse(node)}"
        for source in sources()
        for node in ast.walk(source.tree)
        if source.path != "hermes/config.py"
        and (
            (isinstance(node, ast.Attribute) and node.attr in {"environ", "environb", "getenv", "putenv", "unsetenv"})
            or (
                isinstance(node, ast.ImportFrom)
                and node.module == "os"
                and {"environ", "getenv"} & {n.name for n in node.names}
            )
        )
    )


# --- errors ----------------------------------------------------------------------------------------------------------


def test_broad_catches_stand_at_the_boundaries_only() -> None:
    found, seen = [], set()
    for source in sources():
        for name, node in source.named():
            if isinstance(node, ast.ExceptHandler) and is_broad(node.type) and not raises_again(node):
                seen.add((source.path, name))
                if (source.path, name) not in BOUNDARIES:
                    found.append(
                        f"{source.path}:{node.lineno}: {name} catches {ast.unparse(node.type) if node.type else 'all'}"
                    )
            if (
                isinstance(node, ast.Call)
                and ast.unparse(node.func).endswith("suppress")
                and any(map(is_broad, node.args))
            ):
                found.append(f"{source.path}:{node.lineno}: {ast.unparse(node)}")
    breaches(found)
    gone = set(BOUNDARIES) - seen
    assert not gone, f"no boundary any more, take them off the list: {gone}"


def is_broad(node: ast.expr | None) -> bool:
    if node is None:
        return True
    names = [ast.unparse(item) for item in node.elts] if isinstance(node, ast.Tuple) else [ast.unparse(node)]
    return any(name in {"Exception", "BaseException", "trio.Cancelled", "Cancelled"} for name in names)


def raises_again(handler: ast.ExceptHandler) -> bool:
    """Clean-up that ends with a bare `raise` lets everything through."""
    last = handler.body[-1]
    return isinstance(last, ast.Raise) and (last.exc is None or ast.unparse(last.exc) == handler.name)


def test_nothing_is_left_for_later() -> None:
    word = re.compile(r"\b(TODO|FIXME|XXX|HACK)\b|NotImplementedError|for now\b|pass  # stub", re.IGNORECASE)
    breaches(
        f"{source.path}:{number}: {line.strip()}"
        for source in sources()
        for number, line in enumerate(source.text.splitlines(), 1)
        if word.search(line)
    )


# --- who may import what ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("library", DOORS)
def test_a_library_is_known_behind_its_door_only(library: str) -> None:
    breaches(
        f"{source.path} imports {name}"
        for source in sources()
        for name in imports(source)
        if name.partition(".")[0] == library and not source.path.startswith(DOORS[library] or ("no file",))
    )


def test_the_core_never_imports_a_platform_and_a_platform_only_the_contract() -> None:
    contract = re.compile(r"hermes\.(platform|events|errors|decode)(\.|$)")
    found = []
    for source in sources():
        for name in imports(source):
            if source.path.startswith("hermes/") and name.partition(".")[0] == "platforms":
                found.append(f"{source.path} imports {name}")
            if source.path.startswith("platforms/") and name.startswith("hermes") and not contract.match(name):
                found.append(f"{source.path} imports {name}")
    breaches(found)


def test_the_listener_imports_nothing_of_hermes_but_itself() -> None:
    breaches(
        f"{source.path} imports {name}"
        for source in sources()
        if source.path.startswith("hermes/http/listener/")
        for name in imports(source)
        if name.partition(".")[0] == "hermes" and not re.match(r"hermes\.(http\.listener|errors)(\.|$)", name)
    )


def test_importing_the_package_imports_nothing_heavy() -> None:
    """`hermes --help` and a start to /health must not pay for what only a model call needs."""
    script = (
        "import sys, hermes.cli; print([m for m in ('openai', 'pydantic', 'hypothesis', 'pytest') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "[]"


# --- secrets ---------------------------------------------------------------------------------------------------------


def test_secrets_are_revealed_in_few_places_and_never_inside_a_text() -> None:
    found = []
    for source in sources():
        for node in ast.walk(source.tree):
            reveals = isinstance(node, ast.Call) and ast.unparse(node.func).endswith(".reveal")
            own = source.path.startswith("platforms/")  # which sends the token of its own account
            if reveals and not own and source.path not in REVEALED_IN:
                found.append(f"{source.path}:{node.lineno}: {ast.unparse(node)}")
            if isinstance(node, ast.JoinedStr) and ".reveal()" in ast.unparse(node):
                found.append(f"{source.path}:{node.lineno}: inside a text")
    breaches(found)


# --- the repository --------------------------------------------------------------------------------------------------


def test_the_top_level_holds_what_the_readme_says_and_nothing_else() -> None:
    expected = {"pyproject.toml", "README.md", "hermes", "platforms", "tests", "docs"}
    made_by_tools = {"build", "dist", "hermes_gateway.egg-info", "__pycache__"}
    found = {item.name for item in ROOT.iterdir() if not item.name.startswith(".")} - made_by_tools
    if (ROOT / ".git").exists() and shutil.which(
        "git"
    ):  # what else a person keeps in a clone, such as a backup, is theirs
        git = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True)
        if git.returncode == 0:
            found &= {name.partition("/")[0] for name in git.stdout.split("\0")}
    assert found == expected


def test_no_text_says_how_or_where_it_was_made() -> None:
    words = re.compile(
        r"/root/|/home/\w+/(?!someone)|/work/|/tmp/v\b|pypi\.org|index-url|\bsk-(?!proj-|test)[A-Za-z0-9]{20,}"
    )
    found = []
    for path in [
        *ROOT.glob("*.toml"),
        *ROOT.glob("*.md"),
        *ROOT.glob(".*"),
        *(ROOT / "docs").rglob("*.md"),
        *(ROOT / ".ci").glob("*"),
    ]:
        if path.is_file() and path.name != ".git":  # which says where a work tree of git is
            text = path.read_text(encoding="utf-8")
            found += [f"{path.relative_to(ROOT)}: {match[0]}" for match in words.finditer(text)]
    found += [f"{source.path}: {match[0]}" for source in sources() for match in words.finditer(source.text)]
    breaches(found)


def test_test_files_have_unique_names_and_assert_something() -> None:
    found = []
    names: dict[str, Path] = {}
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        if path.name in names:
            found.append(f"{path.relative_to(ROOT)}: the name is taken by {names[path.name].relative_to(ROOT)}")
        names[path.name] = path
        functions = {
            node.name: ast.unparse(node)
            for node in ast.parse(path.read_text(encoding="utf-8")).body
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        }
        asserts = r"\bassert\b|\bexcept \(|\b(raises|warns|fail|suppress|no_leaks|cancel_at_every_step)\("
        helpers = [
            name for name, text in functions.items() if not name.startswith("test_") and re.search(asserts, text)
        ]
        asserts += "".join(rf"|\b{name}\(" for name in helpers)
        found += [
            f"{path.relative_to(ROOT)}: {name} asserts nothing"
            for name, text in functions.items()
            if name.startswith("test_") and not re.search(asserts, text)
        ]
    breaches(found)


def test_no_test_sleeps_but_to_look_again() -> None:
    """A short sleep inside a loop that looks at an observable fact is waiting; any other is guessing."""
    found = []
    for path in sorted((ROOT / "tests").rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        in_loops = {id(node) for loop in ast.walk(tree) if isinstance(loop, ast.While) for node in ast.walk(loop)}
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "time.sleep":
                seconds = getattr(node.args[0], "value", 1)
                if id(node) not in in_loops or seconds > 0.05:
                    found.append(f"{path.relative_to(ROOT)}:{node.lineno}: {ast.unparse(node)}")
    breaches(found)
