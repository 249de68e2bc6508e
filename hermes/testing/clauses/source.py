"""Clause 7: a platform keeps nothing in its modules, looks at no environment, and brings no second event loop; read from its source."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from hermes.testing.clauses.probe import what_importing_does
from hermes.testing.clauses.subject import Breach, Subject

# What has no place in a platform: other loops, threads of its own, and networks that the host does not know.
NEVER_IMPORTED = frozenset(
    (
        "aiohttp", "anyio", "asyncio", "concurrent", "contextvars", "curio", "gevent", "http.client", "httpcore", "httpcore2",
        "httpx", "httpx2", "imaplib", "multiprocessing", "poplib", "requests", "smtplib", "socket", "socketserver", "sqlite3",
        "threading", "trio_websocket", "urllib.request", "urllib3", "websocket", "websockets",
    )
)  # fmt: skip
CONTRACT = ("hermes.decode", "hermes.errors", "hermes.events", "hermes.platform")
ENVIRONMENT = frozenset(("environ", "environb", "getenv", "getenvb", "putenv", "unsetenv"))
OWN_NETWORK = frozenset(
    ("open_tcp_stream", "open_ssl_over_tcp_stream", "open_unix_socket", "serve_tcp", "run_process", "socket")
)
MAKERS = frozenset(
    (
        "dict", "list", "set", "bytearray", "defaultdict", "deque", "Counter", "OrderedDict", "ChainMap", "ContextVar", "RunVar",
        "WeakKeyDictionary", "WeakValueDictionary", "WeakSet", "Event", "Lock", "Semaphore", "CapacityLimiter", "Condition",
        "open_memory_channel", "count", "cycle", "iter", "Queue", "local",
    )
)  # fmt: skip
CHANGERS = frozenset(
    (
        "add", "append", "appendleft", "clear", "discard", "extend", "insert", "pop", "popitem", "popleft", "remove", "reverse",
        "setdefault", "sort", "update",
    )
)  # fmt: skip


def nothing_global(subject: Subject) -> None:
    """Clause 7."""
    found: list[str] = []
    for path in sources_of(subject):
        text = path.read_text(encoding="utf-8")
        found += [
            f"{path.name}:{line}: {what}" for line, what in sorted(set(look_at(ast.parse(text), _package(subject))))
        ]
    found += what_importing_does(subject)
    if found:
        raise Breach("; ".join(found))


def sources_of(subject: Subject) -> Sequence[Path]:
    """The platform's own modules."""
    if subject.sources:
        return subject.sources
    module = sys.modules.get(subject.spec.open.__module__)
    file = getattr(module, "__file__", None)
    if file is None:
        raise Breach("its source was not found; name its modules as `sources`")
    path = Path(file)
    return sorted(path.parent.rglob("*.py")) if _package(subject) else [path]


def _package(subject: Subject) -> str:
    """The package that is the platform's own; empty for a single file."""
    module = sys.modules.get(subject.spec.open.__module__)
    return str(getattr(module, "__package__", "") or "")


def look_at(tree: ast.Module, package: str) -> Iterator[tuple[int, str]]:
    """What is in a module and must not be: line and words."""
    yield from _imports(tree, package)
    yield from _reaches(tree)
    yield from _state(tree)


def _imports(tree: ast.Module, package: str) -> Iterator[tuple[int, str]]:
    for node in ast.walk(tree):
        names: list[str] = []
        line = getattr(node, "lineno", 0)
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names = [node.module or "", *(f"{node.module}.{alias.name}" for alias in node.names)]
        for name in names:
            if name in NEVER_IMPORTED or name.partition(".")[0] in NEVER_IMPORTED:
                yield line, f"imports {name}"
            elif name.startswith("hermes.") and not _is_below(name, *CONTRACT, package):
                yield line, f"imports {name}, which is not the contract"


def _is_below(name: str, *packages: str) -> bool:
    return any(f"{name}.".startswith(f"{package}.") for package in packages if package)


def _reaches(tree: ast.Module) -> Iterator[tuple[int, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and node.attr == "spawn_system_task":
            yield node.lineno, "spawns a task that nobody awaits"
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            if node.value.id == "os" and node.attr in ENVIRONMENT:
                yield (
                    node.lineno,
                    f"reads the environment (os.{node.attr}); what it needs is a field of its configuration",
                )
            if node.value.id == "trio" and node.attr in OWN_NETWORK:
                yield node.lineno, f"uses trio.{node.attr}; the network comes from the Host"
        elif (
            isinstance(node, ast.ImportFrom)
            and node.module == "os"
            and ENVIRONMENT & {each.name for each in node.names}
        ):
            yield node.lineno, "reads the environment; what it needs is a field of its configuration"
        elif isinstance(node, ast.Global):
            yield node.lineno, f"changes the module's {', '.join(node.names)}"


def _state(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Names of a module or a class that hold what changes: empty containers, what makes some, and what is changed anywhere."""
    changed = set(_changed(tree))
    stateful = {node.name for node in tree.body if isinstance(node, ast.ClassDef) and _holds_state(node)}
    bodies: list[list[ast.stmt]] = [
        tree.body,
        *(node.body for node in ast.walk(tree) if isinstance(node, ast.ClassDef)),
    ]
    for body in bodies:
        for node in body:
            if not isinstance(node, ast.Assign | ast.AnnAssign) or node.value is None:
                continue
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names = {each.id for each in targets if isinstance(each, ast.Name)}
            if _is_state(node.value, stateful) or (names & changed and body is tree.body):
                yield node.lineno, f"the module keeps {', '.join(sorted(names)) or 'something'}, which changes"
    for function in ast.walk(tree):
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
            for decorator in function.decorator_list:
                if ast.unparse(decorator).rpartition(".")[2] in ("cache", "lru_cache(None)", "lru_cache(maxsize=None)"):
                    yield function.lineno, f"{function.name} keeps every result for ever"


def _is_state(value: ast.expr, stateful: set[str]) -> bool:
    if isinstance(value, ast.List | ast.Set | ast.Dict):
        return not (value.keys if isinstance(value, ast.Dict) else value.elts)
    if not isinstance(value, ast.Call):
        return False
    maker = value.func.value if isinstance(value.func, ast.Subscript) else value.func
    return ast.unparse(maker).rpartition(".")[2] in MAKERS | stateful and not _of_constants(value)


def _of_constants(value: ast.Call) -> bool:
    """`dict(a=1)` and `set((1, 2))` are tables, as long as nobody changes them."""
    return ast.unparse(value.func) in ("dict", "list", "set") and bool(value.args or value.keywords)


def _changed(tree: ast.Module) -> Iterator[str]:
    """Names whose content is changed somewhere."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in CHANGERS:
            if isinstance(node.func.value, ast.Name):
                yield node.func.value.id
        elif isinstance(node, ast.Assign | ast.AugAssign | ast.Delete):
            targets = [node.target] if isinstance(node, ast.AugAssign) else node.targets
            for target in targets:
                inner = target.value if isinstance(target, ast.Subscript | ast.Attribute) else None
                if isinstance(inner, ast.Name):
                    yield inner.id


def _holds_state(node: ast.ClassDef) -> bool:
    """Whether objects of a class may change: not the frozen ones."""
    marks = " ".join(map(ast.unparse, (*node.decorator_list, *node.keywords)))
    frozen = "frozen=True" in marks
    values = {"NamedTuple", "Enum", "StrEnum", "IntEnum", "Protocol", "Exception"}
    return not frozen and not any(ast.unparse(base).rpartition(".")[2] in values for base in node.bases)
