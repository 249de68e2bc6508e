"""The platform contract's surface as lines of text: every name, field, method and error that a platform can rely on.

`docs/reference/platform-contract.md` holds these lines, so the page says what the code says, and no line of it changes unseen.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Iterator, Mapping
from typing import Any, get_origin

import msgspec

from hermes import errors, platform

__all__ = ["surface"]


def surface() -> list[str]:
    """One line for each part of the contract, in the order of its names."""
    found: list[str] = []
    for name in sorted(set(platform.__all__)):
        found += _lines(name, getattr(platform, name))
    for name, value in sorted(vars(errors).items()):
        if inspect.isclass(value) and issubclass(value, (errors.PlatformError, errors.StoreUnavailable)):
            found += _lines(name, value)
    return found


def _lines(name: str, value: object) -> Iterator[str]:
    if not inspect.isclass(value):
        if inspect.isfunction(value):
            yield f"{name}{_signature(value)}"
        else:
            yield f"{name} = {_plain(value).replace('hermes.routes.', 'hermes.platform.')}"  # where it is promised
        return
    bases = [
        base.__name__ for base in value.__bases__ if base not in (object, msgspec.Struct) and base.__name__ != "Generic"
    ]
    yield f"class {name}({', '.join(bases)})" if bases else f"class {name}"
    if issubclass(value, msgspec.Struct):
        for field in msgspec.structs.fields(value):
            default = "" if field.default is msgspec.NODEFAULT else f" = {field.default!r}"
            yield f"    {name}.{field.name}: {_annotation(value, field.name)}{default}"
    elif dataclasses.is_dataclass(value):
        for each in dataclasses.fields(value):
            yield f"    {name}.{each.name}: {_annotation(value, each.name)}{_default(each)}"
    for member, found in vars(value).items():
        if isinstance(found, property):
            assert found.fget is not None
            yield f"    {name}.{member}: {inspect.signature(found.fget).return_annotation}  # read only"
        elif inspect.isfunction(found) and (not member.startswith("_") or (member == "__init__" and _is_ours(value))):
            yield f"    {'async ' * inspect.iscoroutinefunction(found)}{name}.{member}{_signature(found)}"
        elif member == "__call__" and inspect.isfunction(found):
            yield f"    {name}.{member}{_signature(found)}"


def _is_ours(value: type) -> bool:
    """Whether its `__init__` was written, not made."""
    return issubclass(value, errors.HermesError)


def _default(field: dataclasses.Field[Any]) -> str:
    if field.default is not dataclasses.MISSING:
        return f" = {field.default!r}"
    return " = (made)" if field.default_factory is not dataclasses.MISSING else ""


def _annotation(value: type, name: str) -> str:
    for base in value.__mro__:
        if name in (known := vars(base).get("__annotations__", {})):
            return str(known[name])
    raise AssertionError(f"{value.__name__}.{name} has no annotation")


def _signature(value: Any) -> str:
    """As it is written, without `self`; annotations are text in these modules, and are shown without quotation marks."""
    signature = inspect.signature(value)
    shown, keyword_only = [], False
    for each in signature.parameters.values():
        if each.name == "self":
            continue
        if each.kind is each.KEYWORD_ONLY and not keyword_only:
            shown.append("*")
        keyword_only = keyword_only or each.kind in (each.KEYWORD_ONLY, each.VAR_POSITIONAL)
        star = "*" * (each.kind is each.VAR_POSITIONAL)
        default = "" if each.default is each.empty else f" = {_default_shown(each.default)}"
        shown.append(f"{star}{each.name}: {each.annotation}{default}")
    return f"({', '.join(shown)}) -> {signature.return_annotation}"


def _default_shown(value: object) -> str:
    if value is ...:
        return "..."
    return "{}" if isinstance(value, Mapping) and not value else repr(value)


def _plain(value: object) -> str:
    return str(value).replace("typing.", "").replace("collections.abc.", "") if get_origin(value) else repr(value)
