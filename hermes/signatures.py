"""From a function's signature and docstring to the JSON schema a model reads and a strict check of what it sends. Pure.

A parameter may be `str`, `int`, `float`, `bool`, `Any`, a `Literal`, `list[…]` or `dict[str, …]` of these, each of
them optional (`X | None`), and bounded with `Annotated[…, msgspec.Meta(ge=1)]`. Anything else is refused when the tool
is made.
"""

from __future__ import annotations

import inspect
import re
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, NoReturn, Union

import msgspec

from hermes.errors import ToolError

_SCALARS = (str, int, float, bool, Any)
_SECTION = re.compile(r"(Args|Returns|Raises|Lifetime|Cancellation|Yields|Example|Examples|Note|Notes):\s*$")
_ARGUMENT = re.compile(r"(\w+)(?:\s*\([^)]*\))?:\s*(.*)")
MAX_ARGUMENTS = 2_097_152  # characters of a call's JSON
MAX_DEPTH = 64  # objects and arrays inside one another
_INT64 = range(-(2**63), 2**63)


class InvalidArguments(ToolError):
    """What the model sent does not fit the tool; nothing was run."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"invalid arguments: {reason}; nothing was run")


class FrozenDict(dict[str, Any]):
    """A dict that cannot be changed; JSON encoders take it as the dict it is."""

    def _refuse(self, *_: Any, **__: Any) -> NoReturn:
        raise TypeError("this value is shared and must not be changed")

    __setitem__ = __delitem__ = __ior__ = clear = pop = popitem = setdefault = update = _refuse


def freeze(value: Any) -> Any:
    """A deep copy of a JSON value in which every object is a FrozenDict and every array a tuple."""
    if isinstance(value, Mapping):
        return FrozenDict((key, freeze(item)) for key, item in value.items())
    if isinstance(value, (list, tuple)):
        return tuple(map(freeze, value))
    return value


@dataclass(frozen=True, slots=True)
class Signature:
    """What a function asks for.

    Args:
        description: the first paragraph of its docstring, on one line.
        parameters: a JSON schema of type object, immutable.
        validate: JSON values by name -> keyword arguments, or a ToolError that says what is wrong and where.
    """

    description: str
    parameters: Mapping[str, Any]
    validate: Callable[[Mapping[str, Any]], dict[str, Any]]


def read_docstring(text: str) -> tuple[str, dict[str, str]]:
    """The first paragraph on one line, and what the section `Args:` says about each argument."""
    lines = inspect.cleandoc(text).splitlines()
    end = next((at for at, line in enumerate(lines) if not line.strip() or _SECTION.match(line)), len(lines))
    arguments: dict[str, str] = {}
    inside, base, current = False, 0, ""
    for line in lines[end:]:
        indent = len(line) - len(line.lstrip())
        if indent == 0 and line.strip():
            inside, base = line.strip() == "Args:", 0
            continue
        if not inside or not line.strip():
            continue
        base = base or indent
        found = _ARGUMENT.match(line.strip()) if indent == base else None
        if found:
            current = found[1]
            arguments[current] = found[2]
        elif current:
            arguments[current] += " " + line.strip()
    return " ".join(line.strip() for line in lines[:end]), arguments


def read_signature(function: Callable[..., Any]) -> Signature:
    """Read a tool's function: everything after its first parameter, which is the TurnContext.

    Args:
        function: `async def name(context, a: str, b: int = 1) -> str`, a bound method or a closure too.

    Raises:
        TypeError: the function cannot be a tool: no docstring, a parameter without a type or with one that is not
            allowed, `*args`, a mutable default, a documented argument that does not exist.
    """
    name = function.__name__
    description, about = read_docstring(function.__doc__ or "")
    if not description:
        raise TypeError(f"the tool {name} needs a docstring: its first paragraph is what the model reads")
    parameters = list(inspect.signature(function).parameters.values())[1:]
    hints = typing.get_type_hints(function, include_extras=True)
    if unknown := about.keys() - {parameter.name for parameter in parameters}:
        raise TypeError(
            f"the docstring of the tool {name} describes {', '.join(sorted(unknown))}, not among its parameters"
        )
    fields = [_field(name, parameter, hints.get(parameter.name)) for parameter in parameters]
    shape = msgspec.defstruct(f"{name}_arguments", fields, kw_only=True, forbid_unknown_fields=True, gc=False)
    return Signature(description, freeze(_schema(shape, about)), _validator(shape))


def _field(tool: str, parameter: inspect.Parameter, hint: Any) -> tuple[str, Any] | tuple[str, Any, Any]:
    where = f"the parameter {parameter.name} of the tool {tool}"
    if parameter.kind not in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
        raise TypeError(f"{where} must be one that can be given by name")
    if hint is None:
        raise TypeError(f"{where} has no type")
    _check_type(where, hint)
    if parameter.default is parameter.empty:
        return parameter.name, hint
    if not isinstance(parameter.default, (str, int, float, bool, tuple, types.NoneType)):
        raise TypeError(f"{where} has a default that can be changed")
    return parameter.name, hint, parameter.default


def _check_type(where: str, hint: Any) -> None:
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if hint in _SCALARS or origin is Literal:
        return
    if origin is Annotated:
        _check_type(where, inner[0])
    elif origin in (Union, types.UnionType) and types.NoneType in inner and len(inner) == 2:
        _check_type(where, next(one for one in inner if one is not types.NoneType))
    elif origin is list:
        _check_type(where, inner[0])
    elif origin is dict and inner[0] is str:
        _check_type(where, inner[1])
    else:
        raise TypeError(f"{where} has a type that a tool cannot take: {hint!r}")


def _schema(shape: type[msgspec.Struct], about: Mapping[str, str]) -> dict[str, Any]:
    """The struct's JSON schema, as short as it can be: the model reads it with every request."""
    (_,), components = msgspec.json.schema_components((shape,))
    whole = next(iter(components.values()))
    properties: dict[str, Any] = {}
    for name, given in whole["properties"].items():
        one = dict(given)
        if "anyOf" in one:  # X | None: leaving it out says the same in fewer words; a null is accepted
            one |= next(option for option in one.pop("anyOf") if option != {"type": "null"})
        if one.get("default", ...) in (None, (), ""):
            del one["default"]
        if set(one.get("enum", ())) and all(isinstance(value, str) for value in one["enum"]):
            one = {"type": "string", **one}
        properties[name] = one | ({"description": about[name]} if name in about else {})
    schema: dict[str, Any] = {"type": "object", "properties": properties}
    if whole.get("required"):
        schema["required"] = whole["required"]
    schema["additionalProperties"] = False
    return schema


def _validator(shape: type[msgspec.Struct]) -> Callable[[Mapping[str, Any]], dict[str, Any]]:
    names = shape.__struct_fields__

    def validate(arguments: Mapping[str, Any]) -> dict[str, Any]:
        try:
            values = msgspec.convert(arguments, shape)
        except msgspec.ValidationError as error:
            known = f" (known: {', '.join(names)})" if "unknown field" in str(error) else ""
            raise InvalidArguments(f"{str(error).replace('`$.', '`')}{known}") from None
        found = {name: getattr(values, name) for name in names}
        for name, value in found.items():
            if type(value) is int and value not in _INT64:
                raise InvalidArguments(f"number out of range - at `{name}`")
        return found

    return validate


def parse_arguments(text: str) -> dict[str, Any]:
    """The object that a call's JSON text holds; white space alone is an empty one.

    Raises:
        InvalidArguments: it is too long, not JSON, not an object, nested too deeply, or no valid Unicode.
    """
    if len(text) > MAX_ARGUMENTS:
        raise InvalidArguments(f"{len(text)} characters, more than {MAX_ARGUMENTS}")
    if not text.strip():
        return {}
    try:
        value = msgspec.json.decode(text.encode())
    except UnicodeEncodeError:
        raise InvalidArguments("not valid Unicode") from None
    except RecursionError:
        raise InvalidArguments("nested too deeply") from None
    except msgspec.DecodeError as error:
        raise InvalidArguments(f"not valid JSON ({error})") from None
    if not isinstance(value, dict):
        raise InvalidArguments("a JSON object is expected")
    if text.count("{") + text.count("[") > MAX_DEPTH and _deeper_than(MAX_DEPTH, value):
        raise InvalidArguments("nested too deeply")
    return value


def _deeper_than(limit: int, value: Any) -> bool:
    layer = [value]
    for _ in range(limit):
        layer = [inner for one in layer for inner in (one.values() if isinstance(one, dict) else one)]
        layer = [inner for inner in layer if isinstance(inner, (dict, list))]
        if not layer:
            return False
    return True
