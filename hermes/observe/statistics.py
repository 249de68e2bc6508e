"""Counters, gauges and histograms, as an object that is handed down, and their Prometheus text."""

from __future__ import annotations

import math
import re
import threading
from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Generic, TypeVar

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
NAME = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*")
LABEL = re.compile(r"(?!__)[a-zA-Z_][a-zA-Z0-9_]*")
MOST_LABEL_SETS = 200  # of one metric; what comes later is counted under OTHER
LONGEST_LABEL = 200
OTHER = "other"
SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)


class Value:
    """One number that goes up (a counter's) or anywhere (a gauge's). May be used from any thread."""

    __slots__ = ("_lock", "value")

    def __init__(self) -> None:
        self.value = 0.0
        self._lock = threading.Lock()

    def add(self, amount: float = 1.0) -> None:
        """Count; a counter takes no negative amount, which `Metrics.counter` says and nobody checks here."""
        with self._lock:
            self.value += amount

    def set(self, value: float) -> None:
        """For gauges: the number now."""
        self.value = value

    def lines(self, name: str, labels: str) -> Iterable[str]:
        """The samples of this child."""
        yield f"{name}{_braced(labels)} {_number(self.value)}"


class Distribution:
    """How often a value fell below each bound. May be used from any thread."""

    __slots__ = ("_bounds", "_counts", "_lock", "total")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.total = 0.0
        self._bounds = tuple(bounds)
        self._counts = [0] * (len(bounds) + 1)
        self._lock = threading.Lock()

    def observe(self, value: float) -> None:
        """One observation."""
        index = bisect_left(self._bounds, value)
        with self._lock:
            self._counts[index] += 1
            self.total += value

    @property
    def count(self) -> int:
        """How many observations there were."""
        return sum(self._counts)

    def lines(self, name: str, labels: str) -> Iterable[str]:
        """The samples of this child: cumulative buckets, sum, count."""
        with self._lock:
            counts, total = list(self._counts), self.total
        below = 0
        for bound, count in zip((*self._bounds, math.inf), counts, strict=True):
            below += count
            comma = "," if labels else ""
            yield f'{name}_bucket{{{labels}{comma}le="{_number(bound)}"}} {below}'
        yield f"{name}_sum{_braced(labels)} {_number(total)}"
        yield f"{name}_count{_braced(labels)} {below}"


Child = TypeVar("Child", Value, Distribution)


class Family(Generic[Child]):
    """A metric and its children, one for each set of label values, at most `MOST_LABEL_SETS`."""

    def __init__(self, name: str, kind: str, about: str, labels: Sequence[str], make: Callable[[], Child]) -> None:
        self.name = name
        self.kind = kind
        self._about = about
        self._labels = tuple(labels)
        self._make: Callable[[], Child] = make
        self._children: dict[tuple[str, ...], Child] = {}
        self._lock = threading.Lock()
        if not labels:
            self.of()

    def of(self, *values: str) -> Child:
        """The child with these label values, in the order of the labels; keep it where it is used often.

        Args:
            values: as many as there are labels. When there are too many sets, all further ones share the child whose
                values are all `other`.
        """
        key = tuple(value[:LONGEST_LABEL] for value in values)
        child = self._children.get(key)
        if child is None:
            child = self._new(key)
        return child

    def _new(self, key: tuple[str, ...]) -> Child:
        if len(key) != len(self._labels):
            raise ValueError(f"{self.name} has the labels {self._labels}, not {key}")
        with self._lock:
            if key not in self._children and len(self._children) >= MOST_LABEL_SETS:
                key = (OTHER,) * len(self._labels)
            return self._children.setdefault(key, self._make())

    def lines(self) -> Iterable[str]:
        """The family in the text format."""
        yield from _head(self.name, self.kind, self._about)
        for key, child in sorted(self._children.copy().items()):
            labels = ",".join(f'{name}="{_escaped(value)}"' for name, value in zip(self._labels, key, strict=True))
            yield from child.lines(self.name, labels)


class Reading:
    """A gauge or counter that is read when it is asked for."""

    def __init__(
        self, name: str, kind: str, about: str, read: Callable[[], float | Mapping[str, float]], label: str
    ) -> None:
        self.name = name
        self.kind = kind
        self._about = about
        self._read = read
        self._label = label

    def lines(self) -> Iterable[str]:
        """The family in the text format."""
        yield from _head(self.name, self.kind, self._about)
        now = self._read()
        if not isinstance(now, Mapping):
            yield f"{self.name} {_number(now)}"
            return
        for value, number in list(now.items())[:MOST_LABEL_SETS]:
            yield f'{self.name}{{{self._label}="{_escaped(value[:LONGEST_LABEL])}"}} {_number(number)}'


class Metrics:
    """The metrics of one gateway; there is no global one. Names are given once, with `hermes_` and the unit in them."""

    def __init__(self) -> None:
        self._families: dict[str, Family[Value] | Family[Distribution] | Reading] = {}

    def counter(self, name: str, about: str, *labels: str) -> Family[Value]:
        """A number that only grows; its name ends in `_total`."""
        if not name.endswith("_total"):
            raise ValueError(f"{name}: a counter's name ends in _total")
        family = Family(name, "counter", about, _checked(name, labels), Value)
        self._add(family)
        return family

    def gauge(self, name: str, about: str, *labels: str) -> Family[Value]:
        """A number that goes up and down."""
        family = Family(name, "gauge", about, _checked(name, labels), Value)
        self._add(family)
        return family

    def histogram(self, name: str, about: str, *labels: str, bounds: Sequence[float] = SECONDS) -> Family[Distribution]:
        """How values are distributed.

        Args:
            name: with its unit, such as `hermes_turn_seconds`.
            about: one sentence.
            labels: their names; `le` is taken.
            bounds: upper bounds of the buckets, rising, finite, at least one.
        """
        if not bounds or list(bounds) != sorted(set(bounds)) or not all(map(math.isfinite, bounds)) or "le" in labels:
            raise ValueError(f"{name}: bounds rise and are finite; `le` is no label")
        family = Family(name, "histogram", about, _checked(name, labels), lambda: Distribution(bounds))
        self._add(family)
        return family

    def reading(
        self,
        name: str,
        about: str,
        read: Callable[[], float | Mapping[str, float]],
        *,
        label: str = "of",
        counter: bool = False,
    ) -> None:
        """A number that its owner already keeps: `read()` is asked at each rendering and must be quick and plain.

        Args:
            name: with its unit.
            about: one sentence.
            read: gives the number, or one for each value of `label`.
            label: the label's name, where `read` gives several.
            counter: whether it only grows.
        """
        _checked(name, (label,))
        self._add(Reading(name, "counter" if counter else "gauge", about, read, label))

    def _add(self, family: Family[Value] | Family[Distribution] | Reading) -> None:
        if family.name in self._families:
            raise ValueError(f"{family.name} is there already")
        self._families[family.name] = family

    def render(self) -> str:
        """Everything in the Prometheus text format, version 0.0.4."""
        return "".join(f"{line}\n" for _, family in sorted(self._families.items()) for line in family.lines())


def _checked(name: str, labels: Sequence[str]) -> Sequence[str]:
    if not NAME.fullmatch(name) or not all(map(LABEL.fullmatch, labels)) or len(set(labels)) != len(labels):
        raise ValueError(f"{name} {labels}: not names of a metric and its labels")
    return labels


def _head(name: str, kind: str, about: str) -> Iterable[str]:
    escaped = about.replace("\\", "\\\\").replace("\n", "\\n")
    return (f"# HELP {name} {escaped}", f"# TYPE {name} {kind}")


def _braced(labels: str) -> str:
    return f"{{{labels}}}" if labels else ""


def _escaped(value: str) -> str:
    value = value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return value if value.isascii() else value.encode("utf-8", "backslashreplace").decode()


def _number(value: float) -> str:
    if math.isinf(value):
        return "+Inf" if value > 0 else "-Inf"
    if math.isnan(value):
        return "NaN"
    return str(int(value)) if value == int(value) and abs(value) < 1e15 else repr(float(value))
