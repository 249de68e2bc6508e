"""`model:` to a ModelConfig: the flat section, the plain-string form, and what the environment fills in. Pure."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import urlsplit

from hermes.decode import Findings, Rule, Wrong, join, kind_of, read_keys, segment, word
from hermes.foreign_keys import BY_SECTION
from hermes.schema import ENDPOINT, MODEL
from hermes.settings import Endpoint, ModelConfig
from hermes.variables import Variables, proxy_for

DEFAULT_MODEL: Final = "gpt-5-mini"
OPENAI_URL: Final = "https://api.openai.com/v1"
MAX_FALLBACKS: Final = 16
MAX_ALIASES: Final = 128
RESERVED_NAME: Final = "hermes"

_MODEL_NAME: Final = word(200)
_PRIMARY_RULES: Final[Mapping[str, Rule]] = {"default": _MODEL_NAME, **ENDPOINT, **MODEL}
_OTHER_RULES: Final[Mapping[str, Rule]] = {"model": _MODEL_NAME, **ENDPOINT}
_FROM_ENVIRONMENT: Final = (
    ("base_url", "OPENAI_BASE_URL"),
    ("api_key", "OPENAI_API_KEY"),
    ("default", "OPENAI_MODEL"),
)


def read_model(tree: Any, variables: Variables, findings: Findings, origins: dict[str, str]) -> ModelConfig:
    """Read `model:`; without any endpoint in the file or the environment the built-in demo model answers.

    Args:
        tree: the section: a mapping, a model's name, or None.
        variables: `OPENAI_API_KEY`, `OPENAI_BASE_URL`, `OPENAI_MODEL` fill what the section leaves out.
        findings: collects mistakes.
        origins: is told where values that are not from the file come from.
    """
    section = {"default": tree} if isinstance(tree, str) else tree
    values = read_keys(
        section, "model", _PRIMARY_RULES, findings, foreign=BY_SECTION["model"], also=("fallback", "aliases")
    )
    given = section if isinstance(section, Mapping) else {}
    filled = _fill(values, given, variables, findings, origins)
    real = any(values.get(key) for key in ("default", "base_url", "api_key")) or filled
    primary = ModelConfig().primary
    if values.get("api") == "demo":
        primary = dataclasses.replace(primary, model=values.get("default", primary.model))
    elif real:
        primary = _endpoint(values, values.get("default") or DEFAULT_MODEL, None, variables, findings)
        if primary.api_key is None and primary.base_url == OPENAI_URL and not _mistaken(findings, "model.api_key"):
            findings.wrong(
                "model.api_key", f"is needed for {OPENAI_URL}; set it, or OPENAI_API_KEY, or another base_url"
            )
    elif set(given) & (set(ENDPOINT) - {"api_key"}):
        findings.warnings.append("model: without default, base_url or api_key the built-in demo model answers")
    rest = {key: value for key, value in values.items() if key in MODEL}
    if rest.get("backoff_base_s", 0) > rest.get("backoff_max_s", ModelConfig().backoff_max_s):
        findings.wrong("model.backoff_base_s", "must not be larger than model.backoff_max_s")
    return ModelConfig(
        primary=primary,
        fallback=_read_fallback(given.get("fallback"), primary, variables, findings),
        aliases=_read_aliases(given.get("aliases"), primary, variables, findings),
        **rest,
    )


def _mistaken(findings: Findings, path: str) -> bool:
    return any(problem.path in (path, "OPENAI_API_KEY") for problem in findings.problems)


def _fill(
    values: dict[str, Any],
    given: Mapping[str, Any],
    variables: Variables,
    findings: Findings,
    origins: dict[str, str],
) -> bool:
    """Fill what the file leaves out; returns whether that alone names an endpoint."""
    if given.get("api") == "demo":
        return False
    names_endpoint = False
    for key, name in _FROM_ENVIRONMENT:
        value = variables.get(name)
        if value is None or key in given:
            continue
        try:
            values[key] = _PRIMARY_RULES[key].read(value)
        except Wrong as wrong:
            findings.wrong(name, str(wrong))
            continue
        origins[f"model.{key}"] = variables.origin(name)
        names_endpoint = names_endpoint or key != "default"
    if "default" not in given and not names_endpoint and not (values.get("base_url") or values.get("api_key")):
        values.pop("default", None)  # a model's name in the environment is no endpoint
        origins.pop("model.default", None)
    return names_endpoint


def _endpoint(
    values: Mapping[str, Any], model: str, base: Endpoint | None, variables: Variables, findings: Findings
) -> Endpoint:
    """One endpoint; without a base_url of its own it stands at `base`, with its key, proxy and headers."""
    if values.get("api") == "demo":
        return Endpoint(model=model, api="demo", provider="demo", base_url="demo:")
    settings = {key: value for key, value in values.items() if key in ENDPOINT}
    if "base_url" in settings or base is None:
        base_url = str(settings.pop("base_url", OPENAI_URL)).rstrip("/")
        settings.setdefault("provider", _provider(base_url))
        if "proxy" not in settings:
            settings["proxy"] = proxy_for(base_url, variables, findings)
        return Endpoint(model=model, base_url=base_url, **settings)
    return dataclasses.replace(base, model=model, **settings)


def _provider(base_url: str) -> str:
    host = urlsplit(base_url).hostname or ""
    return "openai" if host == "api.openai.com" else host[:64]


def _read_fallback(tree: Any, primary: Endpoint, variables: Variables, findings: Findings) -> tuple[Endpoint, ...]:
    if tree is None:
        return ()
    if not isinstance(tree, list) or len(tree) > MAX_FALLBACKS:
        findings.wrong("model.fallback", f"must be a list of at most {MAX_FALLBACKS} entries, and is {kind_of(tree)}")
        return ()
    found = [
        _read_other(entry, f"model.fallback[{position}]", primary, variables, findings)
        for position, entry in enumerate(tree)
    ]
    return tuple(endpoint for endpoint in found if endpoint is not None)


def _read_aliases(
    tree: Any, primary: Endpoint, variables: Variables, findings: Findings
) -> tuple[tuple[str, Endpoint], ...]:
    if tree is None:
        return ()
    if not isinstance(tree, Mapping) or len(tree) > MAX_ALIASES:
        findings.wrong("model.aliases", f"must be a section of at most {MAX_ALIASES} names, and is {kind_of(tree)}")
        return ()
    found = []
    for position, (name, entry) in enumerate(tree.items()):
        path = join("model.aliases", segment(name, position))
        try:
            alias = _MODEL_NAME.read(name)
        except Wrong as wrong:
            findings.wrong(path, f"as a name {wrong}")
            continue
        if alias == RESERVED_NAME:
            findings.wrong(path, "is the name of the gateway's own model")
            continue
        endpoint = _read_other(entry, path, primary, variables, findings)
        if endpoint is not None:
            found.append((alias, endpoint))
    return tuple(found)


def _read_other(tree: Any, path: str, primary: Endpoint, variables: Variables, findings: Findings) -> Endpoint | None:
    """An entry of `fallback` or `aliases`: a section, or the name of another model at the primary's address."""
    if not isinstance(tree, str | Mapping):
        findings.wrong(path, f"must be a section or a model's name, and is {kind_of(tree)}")
        return None
    before = len(findings.problems)
    values = read_keys({"model": tree} if isinstance(tree, str) else tree, path, _OTHER_RULES, findings)
    if len(findings.problems) > before:
        return None
    if values.get("api") == "demo":
        return _endpoint(values, values.get("model", "demo"), None, variables, findings)
    if "model" not in values:
        findings.wrong(path, "needs model: the provider's name of it")
        return None
    if "base_url" not in values and primary.api == "demo":
        findings.wrong(path, "needs base_url, for the primary model has none that it could share")
        return None
    return _endpoint(values, values["model"], primary, variables, findings)
