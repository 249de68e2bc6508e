"""What a JSON body holds, read by name and type: a known field of the wrong type is refused with its path."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from typing import Any, TypeVar

from hermes.errors import RequestError

MAX_DEPTH = 100  # of values that are kept as they are, such as JSON schemas
T = TypeVar("T")
N = TypeVar("N", int, float)

_NAMES: Mapping[type, str] = {
    str: "a string", bool: "a boolean", int: "an integer", float: "a number", list: "an array", dict: "an object",
    type(None): "null",
}  # fmt: skip


def wrong_type(path: str, wanted: str, value: object) -> RequestError:
    """The error for a value that is not what its field takes."""
    return RequestError(
        400, f"{path} must be {wanted}, not {_NAMES.get(type(value), 'this')}", code="invalid_type", param=path
    )


def wrong_value(path: str, reason: str, code: str = "invalid_value") -> RequestError:
    """The error for a value of the right type that is not served; `reason` follows the path."""
    return RequestError(400, f"{path} {reason}", code=code, param=path)


class Fields:
    """One object of a body. Each getter marks its field as known; null counts as left out.

    Args:
        data: the decoded object.
        path: where it is in the body, such as `messages[0]`; empty for the body itself.
    """

    __slots__ = ("_children", "_known", "data", "path")

    def __init__(self, data: dict[str, Any], path: str = "") -> None:
        self.data = data
        self.path = path
        self._known: set[str] = set()
        self._children: list[Fields] = []

    def at(self, name: str) -> str:
        """The path of a field."""
        return f"{self.path}.{name}" if self.path else name

    def child(self, value: object, path: str) -> Fields:
        """An object somewhere inside, read like this one. Raises RequestError 400 for anything else."""
        if type(value) is not dict:
            raise wrong_type(path, "an object", value)
        fields = Fields(value, path)
        self._children.append(fields)
        return fields

    def known(self, *names: str) -> None:
        """Mark fields that are accepted and not read."""
        self._known.update(names)

    def unknown(self) -> int:
        """How many fields, at any depth that was read, nobody asked for."""
        own = len(self.data.keys() - self._known)
        return own + sum(each.unknown() for each in self._children)

    def value(self, name: str) -> Any:
        """Any JSON value as it is, at most `MAX_DEPTH` deep."""
        value = self._take(name)
        if isinstance(value, (dict, list)) and not _shallow(value, MAX_DEPTH):
            raise wrong_value(self.at(name), f"is nested deeper than {MAX_DEPTH} levels")
        return value

    def string(self, name: str, *, most: int | None = None, choices: Collection[str] | None = None) -> str | None:
        """A string, None where it is left out.

        Args:
            most: characters at most.
            choices: the values it may have.
        """
        value = self._take(name)
        if value is None:
            return None
        if type(value) is not str:
            raise wrong_type(self.at(name), "a string", value)
        if most is not None and len(value) > most:
            raise wrong_value(self.at(name), f"is longer than {most} characters")
        if choices is not None and value not in choices:
            raise wrong_value(self.at(name), f"must be one of {', '.join(map(repr, choices))}")
        return value

    def boolean(self, name: str) -> bool | None:
        """A boolean, None where it is left out."""
        value = self._take(name)
        if value is None or type(value) is bool:
            return value
        raise wrong_type(self.at(name), "a boolean", value)

    def integer(self, name: str, least: int, most: int) -> int | None:
        """An integer within bounds, both included; None where it is left out."""
        value = self._take(name)
        if value is None:
            return None
        if type(value) is not int:
            raise wrong_type(self.at(name), "an integer", value)
        return self._within(name, value, least, most)

    def number(self, name: str, least: float, most: float) -> float | None:
        """A number within bounds, both included; None where it is left out."""
        value = self._take(name)
        if value is None:
            return None
        if type(value) is int or (type(value) is float and math.isfinite(value)):
            return self._within(name, value, least, most)
        raise wrong_type(self.at(name), "a number", value)

    def object(self, name: str) -> Fields | None:
        """An object, None where it is left out."""
        value = self._take(name)
        return None if value is None else self.child(value, self.at(name))

    def opaque(self, name: str) -> dict[str, Any] | None:
        """An object that is kept as it is, at most `MAX_DEPTH` deep; None where it is left out."""
        value = self.value(name)
        if value is None or type(value) is dict:
            return value
        raise wrong_type(self.at(name), "an object", value)

    def array(self, name: str, *, most: int | None = None) -> list[Any] | None:
        """An array of whatever, None where it is left out; `most` items at most."""
        value = self._take(name)
        if value is None:
            return None
        if type(value) is not list:
            raise wrong_type(self.at(name), "an array", value)
        if most is not None and len(value) > most:
            raise wrong_value(self.at(name), f"has more than {most} items")
        return value

    def objects(self, name: str, *, most: int | None = None) -> list[Fields] | None:
        """An array of objects, None where it is left out; `most` items at most."""
        value = self.array(name, most=most)
        if value is None:
            return None
        path = self.at(name)
        return [self.child(each, f"{path}[{index}]") for index, each in enumerate(value)]

    def strings(self, name: str, *, most: int) -> tuple[str, ...] | None:
        """An array of strings, None where it is left out; `most` items at most."""
        value = self.array(name, most=most)
        if value is None:
            return None
        for index, each in enumerate(value):
            if type(each) is not str:
                raise wrong_type(f"{self.at(name)}[{index}]", "a string", each)
        return tuple(value)

    def require(self, name: str, value: T | None) -> T:
        """The value, which must be there: `fields.require("model", fields.string("model"))`."""
        if value is None:
            raise RequestError(
                400, f"{self.at(name)} is required", code="missing_required_parameter", param=self.at(name)
            )
        return value

    def _take(self, name: str) -> Any:
        self._known.add(name)
        return self.data.get(name)

    def _within(self, name: str, value: N, least: float, most: float) -> N:
        if not least <= value <= most:
            raise wrong_value(self.at(name), f"must be from {least} to {most}")
        return value


def _shallow(value: object, depth: int) -> bool:
    """Whether a value is at most so many levels deep; level by level, without recursion."""
    level = [value]
    for _ in range(depth):
        level = [
            inner
            for each in level
            for inner in (each.values() if isinstance(each, dict) else each if isinstance(each, list) else ())
            if isinstance(inner, (dict, list))
        ]
        if not level:
            return True
    return False
