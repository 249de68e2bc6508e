"""The configuration as a person may see it: the shape of `config.yaml`, secrets replaced, URLs without logins."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import TYPE_CHECKING, Any, Final

from hermes.schema import MODEL, SECTIONS
from hermes.settings import Config, Endpoint, Secret

if TYPE_CHECKING:
    from hermes.platform_config import AccountConfig

HIDDEN: Final = "***"


def to_display(config: Config) -> dict[str, Any]:
    """The whole configuration as plain values that JSON can carry, every secret as `***`."""
    tree: dict[str, Any] = {"home": str(config.home), "workspace": str(config.workspace), "model": _model(config)}
    for name, (_, rules) in SECTIONS.items():
        section = getattr(config, name)
        tree[name] = {key: _plain(getattr(section, key)) for key in rules}
    tree["platforms"] = {account: _account(section) for account, section in config.platforms.items()}
    return tree


def flatten(tree: Mapping[str, Any], path: str = "") -> list[tuple[str, Any]]:
    """A tree as (path, value) pairs, for one line each."""
    lines: list[tuple[str, Any]] = []
    for name, value in tree.items():
        where = f"{path}.{name}" if path else name
        if isinstance(value, Mapping) and value:
            lines.extend(flatten(value, where))
        else:
            lines.append((where, value))
    return lines


def _model(config: Config) -> dict[str, Any]:
    model = config.model
    primary = _endpoint(model.primary)
    return {
        "default": primary.pop("model"),
        **primary,
        "fallback": [_endpoint(endpoint) for endpoint in model.fallback],
        "aliases": {name: _endpoint(endpoint) for name, endpoint in model.aliases},
        **{key: _plain(getattr(model, key)) for key in MODEL},
    }


def _endpoint(endpoint: Endpoint) -> dict[str, Any]:
    shown = {each.name: _plain(getattr(endpoint, each.name)) for each in fields(Endpoint)}
    shown["headers"] = {name: HIDDEN for name, _ in endpoint.headers}
    shown["proxy"] = _without_login(endpoint.proxy)
    return shown


def _without_login(url: str | None) -> str | None:
    if url is None or "@" not in url:
        return url
    scheme, _, rest = url.partition("://")
    return f"{scheme}://{HIDDEN}@{rest.rpartition('@')[2]}"


def _plain(value: Any) -> Any:
    if isinstance(value, Secret):
        return HIDDEN
    if isinstance(value, frozenset):
        return sorted(value)
    if is_dataclass(value) and not isinstance(value, type):
        return {each.name: _plain(getattr(value, each.name)) for each in fields(value)}
    return [_plain(each) for each in value] if isinstance(value, tuple) else value


def _account(account: AccountConfig) -> dict[str, Any]:
    """An account: its platform's settings, then who may speak."""
    own = {each.name: getattr(account.config, each.name) for each in fields(account.config)}
    access = {each.name: getattr(account.access, each.name) for each in fields(account.access)}
    shown = {"platform": account.spec.name, "required": account.required, **own, **access}
    return {name: _without_login(value) if name == "proxy" else _plain(value) for name, value in shown.items()}
