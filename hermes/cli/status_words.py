"""`hermes status` in words: the few lines that a person wants; everything else is in `--json`. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from hermes.account_words import describe_account, duration

__all__ = ["describe", "duration"]

Json = Mapping[str, Any]


def describe(status: Json) -> list[str]:
    """The lines for a status as the gateway gives it; what it does not say is left out."""
    return list(_lines(status))


def _lines(status: Json) -> Iterator[str]:
    head = [str(status.get("status", "unknown")), f"hermes {status['version']}" if "version" in status else ""]
    if status.get("mode") == "embedded":
        head.append("inside `hermes chat`")
    if isinstance(status.get("uptime_s"), (int, float)):
        head.append(f"up {duration(status['uptime_s'])}")
    accounts = [each for each in _part(status, "accounts").values() if isinstance(each, Mapping)]
    if away := sum(each.get("state", "connected") != "connected" for each in accounts):
        head.append(f"{away} of {len(accounts)} account{'s' * (len(accounts) != 1)} not connected")
    yield " · ".join(each for each in head if each)
    for address in _items(status, "listening"):
        yield f"serves    http://{address}"
    if "home" in status:
        yield f"home      {status['home']}"
    yield from _model(status.get("model"))
    for name, state in _part(status, "checks").items():
        if state != "ok":
            yield f"{name:9} {state}"
    for account, state in _part(status, "accounts").items():
        if not isinstance(state, Mapping):
            yield f"account   {account}: {state}"
            continue
        first, *others = describe_account(state)
        yield f"account   {account}: {first}"
        yield from (f"          {line}" for line in others)
    sessions = _part(status, "sessions")
    if sessions:
        waiting = sessions.get("waiting", 0)
        more = f", {waiting} waiting for room" if waiting else ""
        yield f"sessions  {sessions.get('live', 0)} live, {sessions.get('turning', 0)} in a turn{more}"
    recovered = _part(status, "recovered")
    if recovered.get("turns_cut"):
        cut = "1 turn was" if recovered["turns_cut"] == 1 else f"{recovered['turns_cut']} turns were"
        interrupted, resumed = recovered.get("rows_interrupted", 0), recovered.get("rows_resumed", 0)
        yield f"last stop {cut} cut: {interrupted} interrupted, {resumed} resumed"
    yield from _configuration(_part(status, "config"))


def _model(model: Any) -> Iterator[str]:
    if not isinstance(model, Mapping):
        return
    if model.get("api") == "demo":
        yield "model     the built-in demo; OPENAI_API_KEY or `model:` in config.yaml configures a real one"
    else:
        yield f"model     {model.get('name')} at {model.get('base_url')} ({model.get('api')})"


def _configuration(config: Json) -> Iterator[str]:
    if config.get("error"):
        yield f"config    refused, the one before holds: {config['error']}"
    later = _items(config, "after_restart")
    if later:
        yield f"config    holds after a restart: {', '.join(map(str, later))}"
    for warning in _items(config, "warnings"):
        yield f"note      {warning}"


def _part(status: Json, name: str) -> Json:
    part = status.get(name)
    return part if isinstance(part, Mapping) else {}


def _items(part: Json, name: str) -> list[Any]:
    found = part.get(name)
    return found if isinstance(found, list) else []
