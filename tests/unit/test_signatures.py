"""What a model reads about a function, and what it must send: hermes.signatures."""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal, Optional

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hermes.errors import ToolError
from hermes.signatures import InvalidArguments, freeze, parse_arguments, read_docstring, read_signature


def every_type(
    context: object,
    text: str,
    number: Annotated[int, msgspec.Meta(ge=1, le=9)] = 3,
    share: float = 0.5,
    flag: bool = False,
    choice: Literal["a", "b"] = "a",
    maybe: str | None = None,
    older: Optional[int] = None,  # noqa: UP045  # both spellings must work
    many: list[str] | None = None,
    table: dict[str, int] | None = None,
    anything: Any = None,
) -> str:
    """Take one of
    each type. And more.

    A second paragraph that the model does not read.

    Args:
        text: Some words
            on two lines.
        number (int): A count.
    """
    return ""


SCHEMA = {
    "type": "object",
    "properties": {
        "text": {"type": "string", "description": "Some words on two lines."},
        "number": {"type": "integer", "minimum": 1, "maximum": 9, "default": 3, "description": "A count."},
        "share": {"type": "number", "default": 0.5},
        "flag": {"type": "boolean", "default": False},
        "choice": {"type": "string", "enum": ("a", "b"), "default": "a"},
        "maybe": {"type": "string"},
        "older": {"type": "integer"},
        "many": {"type": "array", "items": {"type": "string"}},
        "table": {"type": "object", "additionalProperties": {"type": "integer"}},
        "anything": {},
    },
    "required": ("text",),
    "additionalProperties": False,
}


def test_the_schema_is_derived_from_the_signature_and_the_docstring() -> None:
    signature = read_signature(every_type)
    assert signature.description == "Take one of each type. And more."
    assert signature.parameters == SCHEMA
    assert json.loads(msgspec.json.encode(signature.parameters)) == json.loads(json.dumps(SCHEMA))


def test_a_schema_cannot_be_changed() -> None:
    parameters = read_signature(every_type).parameters
    for change in ("__setitem__", "setdefault"):
        with pytest.raises(TypeError):
            getattr(parameters["properties"]["text"], change)("type", "integer")
    with pytest.raises(TypeError):
        parameters.clear()  # type: ignore[attr-defined]


def test_a_bound_method_is_a_tool_too() -> None:
    class Holder:
        def act(self, context: object, what: str) -> str:
            """Act."""
            return what

    assert tuple(read_signature(Holder().act).parameters["properties"]) == ("what",)


@pytest.mark.parametrize(
    ("sent", "complaint"),
    [
        ({}, "missing required field `text`"),
        ({"text": 1}, "Expected `str`, got `int` - at `text`"),
        ({"text": None}, "Expected `str`, got `null` - at `text`"),
        ({"text": "x", "number": "3"}, "at `number`"),
        ({"text": "x", "number": True}, "got `bool` - at `number`"),
        ({"text": "x", "number": 2.5}, "at `number`"),
        ({"text": "x", "number": 0}, ">= 1 - at `number`"),
        ({"text": "x", "number": 10}, "<= 9 - at `number`"),
        ({"text": "x", "older": 2**70}, "out of range - at `older`"),
        ({"text": "x", "flag": 1}, "at `flag`"),
        ({"text": "x", "choice": "c"}, "at `choice`"),
        ({"text": "x", "many": "abc"}, "at `many`"),
        ({"text": "x", "many": ["a", 1]}, "at `many[1]`"),
        ({"text": "x", "table": {"k": "v"}}, "at `table[...]`"),
        ({"text": "x", "txet": "y"}, "unknown field `txet` (known: text, number,"),
    ],
)
def test_what_does_not_fit_is_named_with_its_path(sent: dict[str, Any], complaint: str) -> None:
    with pytest.raises(InvalidArguments) as raised:
        read_signature(every_type).validate(sent)
    assert complaint in str(raised.value)
    assert "nothing was run" in str(raised.value)


def test_what_fits_comes_out_with_the_defaults() -> None:
    values = read_signature(every_type).validate({"text": "x", "maybe": None, "many": ["a"], "share": 2})
    assert values == {
        "text": "x", "number": 3, "share": 2.0, "flag": False, "choice": "a", "maybe": None, "older": None,
        "many": ["a"], "table": None, "anything": None,
    }  # fmt: skip


def no_docstring(context: object) -> str:
    return ""


def untyped(context: object, a) -> str:  # type: ignore[no-untyped-def]
    """Do."""
    return ""


def wide(context: object, *a: str) -> str:
    """Do."""
    return ""


def odd_type(context: object, a: set[str]) -> str:
    """Do."""
    return ""


def odd_union(context: object, a: str | int) -> str:
    """Do."""
    return ""


def mutable(context: object, a: list[str] = []) -> str:  # noqa: B006
    """Do."""
    return ""


def misdescribed(context: object, a: str) -> str:
    """Do.

    Args:
        b: gone.
    """
    return ""


@pytest.mark.parametrize(
    ("function", "complaint"),
    [
        (no_docstring, "needs a docstring"),
        (untyped, "has no type"),
        (wide, "given by name"),
        (odd_type, "cannot take"),
        (odd_union, "cannot take"),
        (mutable, "can be changed"),
        (misdescribed, "describes b"),
    ],
)
def test_a_function_that_cannot_be_a_tool_is_refused(function: Any, complaint: str) -> None:
    with pytest.raises(TypeError, match=complaint):
        read_signature(function)


def test_only_the_section_args_describes_arguments() -> None:
    description, arguments = read_docstring("Do it.\n\nArgs:\n    a: One.\n\nReturns:\n    b: Not an argument.")
    assert (description, arguments) == ("Do it.", {"a": "One."})


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),  # JSON has neither
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=12,
)
names = st.sampled_from(sorted(SCHEMA["properties"])) | st.text(max_size=6)  # type: ignore[arg-type]


@given(st.dictionaries(names, json_values, max_size=8))
def test_whatever_is_sent_is_checked_or_refused_and_never_anything_else(sent: dict[str, Any]) -> None:
    signature = read_signature(every_type)
    try:
        values = signature.validate(sent)
    except ToolError:
        return
    assert set(values) == set(SCHEMA["properties"])  # type: ignore[call-overload]
    assert isinstance(values["text"], str)
    assert type(values["number"]) is int
    assert 1 <= values["number"] <= 9
    assert values["choice"] in ("a", "b")
    assert values["many"] is None or all(isinstance(one, str) for one in values["many"])


@given(st.dictionaries(st.text(max_size=8), json_values, max_size=5))
def test_arguments_are_read_as_they_were_written(value: dict[str, Any]) -> None:
    text = json.dumps(value)
    assert "\\ud" in text.lower() or parse_arguments(text) == json.loads(text)


@given(st.text() | st.binary().map(lambda data: data.decode("latin-1")) | json_values.map(json.dumps))
def test_any_text_is_an_object_or_is_refused(text: str) -> None:
    try:
        value = parse_arguments(text)
    except InvalidArguments:
        return
    assert isinstance(value, dict)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ('{"a": 1', "not valid JSON"),
        ("{'a': 1}", "not valid JSON"),
        ('{"a": NaN}', "not valid JSON"),
        ('{"a": "\\ud800"}', "not valid JSON"),
        ('{"a": "\ud800"}', "not valid Unicode"),
        ("[]", "object is expected"),
        ("null", "object is expected"),
        ('"text"', "object is expected"),
        ('{"a":' * 100_000, "nested too deeply"),
        ('{"a":' + "[" * 64 + "]" * 64 + "}", "nested too deeply"),
        ('{"a": "' + "x" * 2_097_152 + '"}', "characters, more than"),
    ],
)
def test_what_is_no_object_is_refused(text: str, complaint: str) -> None:
    with pytest.raises(InvalidArguments, match=complaint):
        parse_arguments(text)


def test_the_deepest_that_is_taken_and_nothing_at_all() -> None:
    assert parse_arguments('{"a":' + "[" * 63 + "]" * 63 + "}")
    assert parse_arguments('{"a": "' + "[" * 1000 + '"}') == {"a": "[" * 1000}
    assert parse_arguments(" \n") == {}


@given(json_values)
def test_a_frozen_value_is_the_same_json(value: Any) -> None:
    assert msgspec.json.encode(freeze(value)) == msgspec.json.encode(value)
