"""`.env`: what each form of line means, and that no mistake repeats the line."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hermes.dotenv import MAX_BYTES, read_dotenv


@pytest.mark.parametrize(
    ("line", "value"),
    [
        ("A=b", "b"),
        ("  A = b  ", "b"),
        ("export A=b", "b"),
        ("A=", ""),
        ("A=b # comment", "b"),
        ("A=b#c", "b#c"),
        ("A=# comment", ""),
        ("A='b # c'", "b # c"),
        ("A='$x \\n'", "$x \\n"),
        ('A="b\\n\\"c\\" \\\\ \\$"', 'b\n"c" \\ $'),
        ('A="b" # comment', "b"),
        ("A=b=c", "b=c"),
        ("\ufeffA=b", "b"),
        ("A=b\r", "b"),
    ],
)
def test_lines_that_are_read(line: str, value: str) -> None:
    values, problems = read_dotenv(f"# first\n\n{line}\r\n" if line.endswith("\r") else line + "\n")
    if line.endswith("\r"):
        assert problems  # a carriage return that ends no line is a control character
    else:
        assert (values, problems) == ({"A": value}, [])


@pytest.mark.parametrize(
    "line",
    ["secret", "1A=secret", "A B=secret", "A='secret", 'A="secret', 'A="x" secret', 'A="\\q secret"', "A=\x00secret"],
)
def test_lines_that_are_refused_are_not_repeated(line: str) -> None:
    values, problems = read_dotenv(f"B=1\n{line}\nC=2")
    assert values == {"B": "1", "C": "2"}
    assert [problem.path for problem in problems] == [".env line 2"]
    assert "secret" not in problems[0].reason


def test_a_name_twice_and_too_much() -> None:
    assert read_dotenv("A=1\nA=2")[1][0].path == ".env line 2"
    assert read_dotenv("A=1\r\nB=2\r\n") == ({"A": "1", "B": "2"}, [])
    assert read_dotenv("#" * (MAX_BYTES + 1))[1][0].path == ".env"


@given(st.text(max_size=200))
def test_any_text_is_read_or_refused_by_line(text: str) -> None:
    values, problems = read_dotenv(text)
    assert all(name.isascii() for name in values)
    assert all(problem.path.startswith(".env line ") for problem in problems)


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), max_size=60))
def test_a_double_quoted_value_comes_back(value: str) -> None:
    if any(letter < " " and letter not in "\n\t" for letter in value):
        return
    escaped = value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n").replace("\t", "\\t")
    assert read_dotenv(f'A="{escaped}"') == ({"A": value}, [])
