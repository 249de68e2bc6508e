"""The configuration: `config.yaml`, `.env` and the environment to one frozen Config, with every mistake at once.

This is the only reader of the process's environment. File over environment over `.env`; the command line is above all.
A mistake is told by its path and never by its value. Nothing is created or opened for writing here.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from hermes import foreign_keys
from hermes.config_model import read_model
from hermes.decode import Findings, Wrong, kind_of, read_keys, unknown_key
from hermes.dotenv import MAX_BYTES as DOTENV_BYTES
from hermes.dotenv import read_dotenv
from hermes.errors import ConfigError, Problem
from hermes.gateway_options import Overrides, ServeOptions
from hermes.home import Home, locate_home
from hermes.schema import SECTIONS, TOP_LEVEL, WORKSPACE
from hermes.settings import Config, HttpConfig, Surroundings, TranscriptionConfig
from hermes.variables import Variables, expand, is_loopback, proxy_for, terminal_environment

if TYPE_CHECKING:
    from hermes.discovery import FoundPlatform
    from hermes.platform_config import AccountConfig

__all__ = ["Loaded", "config_fingerprint", "diff_config", "load", "load_config", "process_environment", "reload_config"]

MIN_KEY: Final = 16
# an account that variables alone make needs one that ends so
ACCOUNT_VARIABLES: Final = ("_TOKEN", "_ADDRESS", "_SERVER")
_HTTP_NAMES: Final = (("host", "API_SERVER_HOST"), ("port", "API_SERVER_PORT"), ("key", "API_SERVER_KEY"))

Finder: TypeAlias = "Callable[[Path], Mapping[str, FoundPlatform]]"
Fingerprint = tuple[tuple[str, int, int, int], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """A configuration, and where its values come from.

    Args:
        config: the frozen value.
        origins: path -> `file`, `command line`, `environment NAME` or `.env NAME`; what is not in it is a default.
    """

    config: Config
    origins: Mapping[str, str]


def process_environment() -> dict[str, str]:
    """A copy of the process's environment: the one place that looks at it."""
    return dict(os.environ)


def load_config(
    home: Path | None, config_file: Path | None, overrides: Overrides, environ: Mapping[str, str]
) -> Config:
    """Read the configuration.

    Args:
        home: `--home`, or None for `$HERMES_HOME`, else `~/.hermes-gateway`.
        config_file: `--config`, or None for `config.yaml` in the home, which may be absent.
        overrides: what the command line says.
        environ: the environment.

    Raises:
        ConfigError: with every mistake that was found.
    """
    return load(home, config_file, overrides, environ).config


def reload_config(options: ServeOptions) -> Config:
    """Read everything again as the command line asked for it.

    Raises:
        ConfigError: with every mistake that was found; the caller goes on with what it has.
    """
    return load_config(options.home, options.config_file, options.overrides, process_environment())


def load(
    home: Path | None,
    config_file: Path | None,
    overrides: Overrides,
    environ: Mapping[str, str],
    *,
    platforms: Finder | None = None,
) -> Loaded:
    """Like `load_config`, and where each value comes from."""
    place = Home(locate_home(home, environ))
    place.refuse_foreign()
    findings = Findings()
    dotenv = _read_env_file(place.env_file, findings)
    variables = Variables(environ, dotenv)
    tree = _read_file(place.config_file if config_file is None else config_file, config_file is not None, findings)
    origins: dict[str, str] = {}
    config = _decode(tree, place, overrides, variables, findings, origins, platforms)
    if findings.problems:
        raise ConfigError(*_scrubbed(findings.problems, {**dotenv, **environ}))
    return Loaded(config=config, origins=MappingProxyType(origins))


def _decode(
    raw: Any,
    place: Home,
    overrides: Overrides,
    variables: Variables,
    findings: Findings,
    origins: dict[str, str],
    platforms: Finder | None,
) -> Config:
    tree = _sections(expand(raw, variables, findings), findings)
    _note_file(tree, origins)
    sections: dict[str, Any] = {"http": _read_http(tree.get("http"), overrides, variables, findings, origins)}
    for name, (settings, rules) in SECTIONS.items():
        if name == "http" or tree.get(name) is None:
            continue
        values = read_keys(tree[name], name, rules, findings, foreign=foreign_keys.BY_SECTION.get(name))
        sections[name] = settings(**values)
    supervision = sections.get("supervision")
    if supervision is not None and supervision.backoff_base_s > supervision.backoff_max_s:
        findings.wrong("supervision.backoff_base_s", "must not be larger than supervision.backoff_max_s")
    if "transcription" in sections:
        sections["transcription"] = _with_proxy(sections["transcription"], tree["transcription"], variables, findings)
    passthrough = sections["terminal"].env_passthrough if "terminal" in sections else ()
    model = read_model(tree.get("model"), variables, findings, origins)
    quiet = {"quiet_s": supervision.quiet_s} if supervision is not None and "quiet_s" in tree["supervision"] else {}
    accounts = _read_accounts(tree.get("platforms"), place, variables, findings, origins, platforms, quiet)
    workspace = _read_workspace(tree, place, overrides, variables, findings)
    if findings.foreign:
        findings.warnings.append("keys of hermes-agent without a meaning here: " + ", ".join(findings.foreign))
    return Config(
        home=place.path,
        workspace=workspace,
        model=model,
        platforms=accounts,
        warnings=tuple(findings.warnings),
        surroundings=_surroundings(variables, passthrough),
        **sections,
    )


def _with_proxy(
    chosen: TranscriptionConfig, given: Any, variables: Variables, findings: Findings
) -> TranscriptionConfig:
    """With an address of its own and no word of a proxy, the environment decides."""
    if chosen.base_url is None or "proxy" in given:
        return chosen
    return replace(chosen, proxy=proxy_for(chosen.base_url, variables, findings))


def _read_bytes(path: Path, most: int) -> bytes | None:
    """At most one byte more than `most`; None where there is no file."""
    try:
        with path.open("rb") as file:
            return file.read(most + 1)
    except FileNotFoundError:
        return None


def _read_text(path: Path, name: str, most: int, findings: Findings) -> str | None:
    try:
        data = _read_bytes(path, most)
    except OSError as error:
        findings.wrong(name, f"cannot be read: {error.strerror}")
        return None
    if data is None:
        return None
    if len(data) > most:
        findings.wrong(name, f"is larger than {most} bytes")
        return None
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        findings.wrong(name, f"is not UTF-8 (byte {error.start + 1})")
        return None


def _read_env_file(path: Path, findings: Findings) -> dict[str, str]:
    text = _read_text(path, ".env", DOTENV_BYTES, findings)
    if text is None:
        return {}
    values, problems = read_dotenv(text)
    findings.problems.extend(problems)
    try:
        shared = path.stat().st_mode & 0o077
    except OSError:
        shared = 0
    if shared:
        findings.warnings.append(".env can be read by other users; chmod 600 keeps its secrets")
    return values


def _read_file(path: Path, asked_for: bool, findings: Findings) -> Any:
    if not asked_for and not path.exists():
        return None
    from hermes.yamltree import MAX_BYTES, Unreadable, read_tree  # most first starts have no file

    text = _read_text(path, path.name, MAX_BYTES, findings)
    if text is None:
        if asked_for and not path.exists():
            findings.wrong("--config", "there is no such file")
        return None
    try:
        tree, problems = read_tree(text)
    except Unreadable as error:
        # Without the file the rest would be judged by defaults: its mistakes would be invented.
        raise ConfigError(*findings.problems, Problem(path.name, str(error))) from None
    if isinstance(tree, Mapping) and foreign_keys.HOME_MARK in tree:
        raise ConfigError(Problem(path.name, "was written by hermes-agent; use another home (--home or HERMES_HOME)"))
    findings.problems.extend(problems)
    return tree


def _sections(tree: Any, findings: Findings) -> Mapping[str, Any]:
    if tree is None:
        return {}
    if not isinstance(tree, Mapping):
        findings.wrong("config.yaml", f"must hold sections such as `model:`, and is {kind_of(tree)}")
        return {}
    for position, name in enumerate(tree):
        if name not in TOP_LEVEL:
            unknown_key(name, position, "", TOP_LEVEL, findings, foreign_keys.TOP_LEVEL)
    return tree


def _note_file(tree: Mapping[str, Any], origins: dict[str, str]) -> None:
    for name, section in tree.items():
        if name == "platforms" and isinstance(section, Mapping):
            for account, keys in section.items():
                given = keys if isinstance(keys, Mapping) else ()
                origins.update({f"platforms.{account}.{key}": "file" for key in given})
        elif isinstance(section, Mapping):
            origins.update({f"{name}.{key}": "file" for key in section})
        elif section is not None:
            origins["model.default" if name == "model" else str(name)] = "file"


def _read_http(
    tree: Any, overrides: Overrides, variables: Variables, findings: Findings, origins: dict[str, str]
) -> HttpConfig:
    rules = SECTIONS["http"][1]
    before = len(findings.problems)
    values = read_keys(tree, "http", rules, findings)
    given = tree if isinstance(tree, Mapping) else {}
    sources: list[tuple[str, Any, str, str]] = []
    for key, name in _HTTP_NAMES:
        if key not in given and (found := variables.get(name)) is not None:
            sources.append(
                (key, int(found) if found.isdecimal() and len(found) < 9 else found, name, variables.origin(name))
            )
    for key, flag, chosen in (("host", "--host", overrides.host), ("port", "--port", overrides.port)):
        if chosen is not None:
            sources.append((key, chosen, flag, "command line"))
    for key, value, name, origin in sources:
        try:
            values[key] = rules[key].read(str(value) if key == "key" else value)
        except Wrong as wrong:
            findings.wrong(name, str(wrong))
        else:
            origins[f"http.{key}"] = origin
    http = HttpConfig(**values)
    length = len(http.key.reveal()) if http.key is not None else 0
    if len(findings.problems) > before:
        return http  # whether there is a key is not known when it could not be read
    if not is_loopback(http.host) and length < MIN_KEY:
        findings.wrong(
            "http.host",
            f"listens beyond this machine, which needs a key of {MIN_KEY} or more characters: "
            "set http.key or API_SERVER_KEY, or listen on 127.0.0.1",
        )
    elif 0 < length < MIN_KEY:
        findings.warnings.append(f"http.key: is shorter than {MIN_KEY} characters")
    return http


def _read_accounts(
    tree: Any,
    place: Home,
    variables: Variables,
    findings: Findings,
    origins: dict[str, str],
    platforms: Finder | None,
    shared: Mapping[str, object],
) -> Mapping[str, AccountConfig]:
    """The accounts; what reads them is loaded only where there may be one."""
    if not tree and (tree is None or isinstance(tree, Mapping)) and not variables.any_ends_with(ACCOUNT_VARIABLES):
        return MappingProxyType({})
    from hermes.discovery import find_platforms
    from hermes.platform_config import read_accounts

    find = platforms or find_platforms
    return read_accounts(tree, variables, findings, lambda: find(place.path), origins, shared)


def _read_workspace(
    tree: Mapping[str, Any], place: Home, overrides: Overrides, variables: Variables, findings: Findings
) -> Path:
    """Where tools work: never the home or what holds it, and inside the home only `workspace/`."""
    if overrides.workspace is None and tree.get("workspace") is None:
        return place.workspace
    if overrides.workspace is not None:
        chosen = overrides.workspace
    else:
        try:
            text: str = WORKSPACE.read(tree["workspace"])
        except Wrong as wrong:
            findings.wrong("workspace", str(wrong))
            return place.workspace
        if text.startswith("~/") and (user_home := variables.get("HOME")) is not None:
            text = f"{user_home}/{text[2:]}"
        chosen = place.path / text
        if place.path.is_relative_to(chosen.resolve()):
            findings.wrong("workspace", "must not be the home of Hermes or a directory that holds it")
            return place.workspace
    real = chosen.resolve()
    if real.is_relative_to(place.path) and not real.is_relative_to(place.workspace):
        findings.wrong("workspace", "must not be inside the home of Hermes, except in its workspace/")
    return real


def _surroundings(variables: Variables, passthrough: tuple[str, ...]) -> Surroundings:
    microseconds = variables.get("WATCHDOG_USEC") or ""
    meant_for = variables.get("WATCHDOG_PID")
    watched = microseconds.isdecimal() and len(microseconds) < 16 and meant_for in (None, str(os.getpid()))
    runtime_dir = variables.get("XDG_RUNTIME_DIR")
    return Surroundings(
        notify_socket=variables.get("NOTIFY_SOCKET"),
        watchdog_s=(int(microseconds) / 1e6 or None) if watched else None,
        invocation_id=variables.get("INVOCATION_ID") or "",
        runtime_dir=Path(runtime_dir) if runtime_dir and runtime_dir.startswith("/") else None,
        state_dir=_state_dir(variables),
        temp_dir=Path(variables.get("TMPDIR") or Surroundings().temp_dir),
        terminal_env=MappingProxyType(terminal_environment(variables, passthrough)),
    )


def _state_dir(variables: Variables) -> Path | None:
    """As the XDG Base Directory Specification has it: a relative path is not one."""
    chosen, home = variables.get("XDG_STATE_HOME") or "", variables.get("HOME") or ""
    if chosen.startswith("/"):
        return Path(chosen)
    return Path(home, ".local", "state") if home.startswith("/") else None


def _scrubbed(problems: Sequence[Problem], values: Mapping[str, str]) -> Iterable[Problem]:
    """The first problem of each path; none repeats a variable whose name says that it is a secret."""
    endings = ("KEY", "TOKEN", "SECRET", "PASSWORD", "PASSWD", "CREDENTIALS")
    secrets = [value for name, value in values.items() if name.upper().endswith(endings) and len(value) >= 8]
    first = {problem.path: problem for problem in reversed(problems)}
    for problem in dict.fromkeys(first[each.path] for each in problems):
        path, reason = problem.path, problem.reason
        for secret in secrets:
            path, reason = path.replace(secret, "***"), reason.replace(secret, "***")
        yield Problem(path, reason)


def diff_config(old: Config, new: Config) -> frozenset[str]:
    """Which sections differ: `http`, `model`, … and `platforms.<account>` for each account that differs."""
    passed_over = ("home", "warnings", "platforms")
    changed = {
        each.name
        for each in fields(Config)
        if each.name not in passed_over and getattr(old, each.name) != getattr(new, each.name)
    }
    for account in {*old.platforms, *new.platforms}:
        if old.platforms.get(account) != new.platforms.get(account):
            changed.add(f"platforms.{account}")
    return frozenset(changed)


def config_fingerprint(home: Path, config_file: Path | None) -> Fingerprint:
    """What tells that `config.yaml` or `.env` was changed: inode, size and time, or zeros without a file."""
    place = Home(home)
    marks = []
    for path in (config_file or place.config_file, place.env_file):
        try:
            status = path.stat()
        except OSError:
            marks.append((str(path), 0, 0, 0))
        else:
            marks.append((str(path), status.st_ino, status.st_size, status.st_mtime_ns))
    return tuple(marks)
