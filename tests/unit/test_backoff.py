"""Decisions about failed accounts, as properties: what counts, what is forgotten, what an exception means."""

from __future__ import annotations

import errno
import itertools
import math
import random

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from hermes.backoff import (
    BUGS_MOST,
    BUGS_WINDOW_S,
    FINALITY,
    LONGEST_REASON,
    RETRY_AFTER_MOST_S,
    Failure,
    History,
    Kind,
    Outcome,
    Park,
    Retry,
    classify,
    decide,
    full_jitter,
    sane_retry_after,
)
from hermes.errors import (
    ConfigError,
    PlatformConflict,
    PlatformError,
    PlatformProtocolError,
    PlatformRefused,
    PlatformUnavailable,
    Problem,
    RateLimited,
    StoreUnavailable,
    Unreachable,
)
from hermes.settings import SupervisionConfig

SETTINGS = SupervisionConfig()

seconds = st.floats(0, 1e6)
asked = st.none() | st.floats(allow_nan=True, allow_infinity=True)
rngs = st.integers(0, 2**32).map(random.Random)
failures = st.builds(
    Failure, kind=st.sampled_from(FINALITY), reason=st.just("why"), retry_after_s=asked, path=st.none()
)
outcomes = st.builds(Outcome, failure=failures, up_s=seconds, progressed=st.booleans())
settings = st.builds(
    SupervisionConfig,
    backoff_base_s=st.floats(0.01, 60),
    backoff_max_s=st.floats(60, 3600),
    healthy_after_s=seconds,
    probe_s=st.floats(1, 1e5),
)


def of(kind: Kind, **more: float) -> Outcome:
    return Outcome(failure=Failure(kind=kind, reason="why", retry_after_s=more.pop("retry_after_s", None)), **more)  # type: ignore[arg-type]


# --- delays


@given(st.integers(0, 10**6), st.floats(0.01, 100), st.floats(0.01, 1e4), rngs)
def test_a_delay_is_between_nothing_and_a_bound_that_doubles(
    failed: int, base_s: float, max_s: float, rng: random.Random
) -> None:
    delay = full_jitter(failed, base_s=base_s, max_s=max_s, rng=rng)
    assert 0 <= delay <= max_s
    assert delay <= base_s * 2.0 ** min(max(failed - 1, 0), 40)


def test_delays_use_the_whole_width() -> None:
    rng = random.Random(1)
    delays = sorted(full_jitter(5, base_s=1, max_s=300, rng=rng) for _ in range(1000))
    assert delays[0] < 0.5
    assert 7 < delays[500] < 9
    assert delays[-1] > 15.5


@given(asked)
def test_what_a_service_asks_for_is_taken_within_reason(value: float | None) -> None:
    assert 0 <= sane_retry_after(value) <= RETRY_AFTER_MOST_S


# --- decisions


@given(st.lists(st.tuples(outcomes, seconds), max_size=60), settings, rngs)
def test_every_series_of_outcomes_is_bounded_and_parks_only_what_it_may(
    series: list[tuple[Outcome, float]], given_settings: SupervisionConfig, rng: random.Random
) -> None:
    history, now, bugs = History(), 0.0, 0
    for outcome, pause_s in series:
        now += pause_s
        history, then = decide(history, outcome, now=now, rng=rng, settings=given_settings)
        kind, wait = outcome.failure.kind, sane_retry_after(outcome.failure.retry_after_s)
        bugs += kind == "bug"
        assert len(history.bugs) <= min(bugs, BUGS_MOST)
        match then:
            case Park("refused", probe):
                assert (kind, probe) == ("refused", None)
            case Park("bug", probe):
                assert (kind, probe) == ("bug", given_settings.probe_s)
                assert history.parked
                assert bugs >= BUGS_MOST
            case Park():
                pytest.fail(f"{then}")
            case Retry(delay):
                assert kind != "refused"
                if kind in ("unavailable", "limited"):
                    assert wait <= delay <= max(given_settings.backoff_max_s, wait + given_settings.backoff_base_s)
                elif kind == "conflict":
                    assert delay == max(given_settings.backoff_max_s, wait)
                elif kind == "store":
                    assert delay == 0
                else:
                    assert delay <= given_settings.backoff_max_s


@given(st.integers(1, 500), rngs)
def test_an_unavailable_service_never_parks_and_its_delays_stay_bounded(times: int, rng: random.Random) -> None:
    history = History()
    for number in range(times):
        history, then = decide(history, of("unavailable"), now=number, rng=rng, settings=SETTINGS)
        assert isinstance(then, Retry)
        assert then.delay_s <= SETTINGS.backoff_max_s
    assert (history.failures, history.bugs, history.parked) == (times, (), False)


@given(seconds, st.booleans(), rngs)
def test_only_time_together_with_progress_makes_failures_forgotten(
    up_s: float, progressed: bool, rng: random.Random
) -> None:
    before = History(failures=7, bugs=(1.0,), parked=True)
    after, _ = decide(before, of("unavailable", up_s=up_s, progressed=progressed), now=9, rng=rng, settings=SETTINGS)
    healthy = progressed and up_s >= SETTINGS.healthy_after_s
    assert after == (History(1, (1.0,)) if healthy else History(8, (1.0,), parked=True))


def test_intensity_counts_bugs_alone_within_their_window() -> None:
    rng = random.Random(1)
    history = History()
    for number in range(50):  # one each quarter of an hour is an annoyance, not a loop
        history, then = decide(history, of("bug"), now=number * 2 * BUGS_WINDOW_S, rng=rng, settings=SETTINGS)
        assert isinstance(then, Retry)
    history = History()
    kinds: list[Kind] = ["bug", "unavailable", "conflict", "limited", "store"]
    for number, kind in enumerate(itertools.islice(itertools.cycle(kinds), 4 * len(kinds))):
        history, then = decide(history, of(kind), now=number, rng=rng, settings=SETTINGS)
        assert isinstance(then, Retry)
    history, then = decide(history, of("bug"), now=100, rng=rng, settings=SETTINGS)
    assert then == Park("bug", SETTINGS.probe_s)
    # What runs now is a probe: one bug parks it again, an outage is waited for like any other.
    history, then = decide(history, of("unavailable"), now=10_000, rng=rng, settings=SETTINGS)
    assert isinstance(then, Retry)
    history, then = decide(history, of("bug"), now=20_000, rng=rng, settings=SETTINGS)
    assert then == Park("bug", SETTINGS.probe_s)
    history, then = decide(history, of("bug", up_s=100, progressed=True), now=40_000, rng=rng, settings=SETTINGS)
    assert isinstance(then, Retry)


# --- what an exception means


def raised(
    error: BaseException, during: BaseException | None = None, *, cause: BaseException | None = None
) -> BaseException:
    """The error as it is when it was raised while another was on its way."""
    try:
        if during is None:
            raise error from cause if cause is not None else error.__cause__
        try:
            raise during
        except BaseException:
            if cause is not None:
                raise error from cause  # noqa: ASYNC104
            raise error  # noqa: ASYNC104, B904  # the context is the point
    except BaseException as caught:  # noqa: ASYNC103
        return caught  # noqa: ASYNC104


REFUSED, AWAY, CONFLICT = PlatformRefused, PlatformUnavailable, PlatformConflict


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (PlatformRefused("x"), "refused"),
        (ConfigError(Problem("platforms.a", "wrong")), "refused"),
        (PlatformConflict("x"), "conflict"),
        (PlatformUnavailable("x"), "unavailable"),
        (Unreachable("x", sent=True), "unavailable"),
        (PlatformProtocolError("x"), "unavailable"),
        (PlatformError("x"), "unavailable"),
        (RateLimited("x", retry_after_s=1), "limited"),
        (StoreUnavailable("full"), "store"),
        (KeyError("x"), "bug"),
        (OSError("x"), "bug"),
        (trio.ClosedResourceError(), "bug"),
        (OSError(errno.EMFILE, "too many open files"), "unavailable"),
        (trio.TooSlowError(), "bug"),
        (AssertionError(), "bug"),
    ],
)
def test_a_single_error(error: BaseException, kind: Kind) -> None:
    assert classify(error).kind == kind
    assert classify(ExceptionGroup("", [ExceptionGroup("", [error])])).kind == kind  # type: ignore[list-item]


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        # a clean-up that fails while something is on its way
        (raised(OSError("close"), REFUSED("x")), "refused"),
        (raised(AWAY("close"), REFUSED("x")), "refused"),
        (raised(KeyError("close"), REFUSED("x")), "refused"),
        (raised(OSError("close"), raised(KeyError("close"), REFUSED("x"))), "refused"),
        (raised(ExceptionGroup("", [OSError("close")]), REFUSED("x")), "refused"),
        (raised(OSError("close"), CONFLICT("x")), "conflict"),
        (raised(trio.BrokenResourceError(), AWAY("x")), "unavailable"),
        (raised(KeyError("close"), AWAY("x")), "bug"),
        # an error that was made from another
        (raised(AWAY("x"), KeyError("y")), "unavailable"),
        (raised(AWAY("x"), cause=OSError("y")), "unavailable"),
        (raised(AWAY("x"), cause=raised(OSError("y"), REFUSED("z"))), "refused"),
        (raised(REFUSED("x"), AWAY("y")), "refused"),
        # several at once
        (ExceptionGroup("", [AWAY("x"), CONFLICT("y"), REFUSED("z")]), "refused"),
        (ExceptionGroup("", [AWAY("x"), CONFLICT("y")]), "conflict"),
        (ExceptionGroup("", [AWAY("x"), KeyError("y"), CONFLICT("z")]), "bug"),
        (ExceptionGroup("", [AWAY("x"), OSError("y"), trio.ClosedResourceError()]), "unavailable"),
        (ExceptionGroup("", [AWAY("x"), StoreUnavailable("full")]), "unavailable"),
        (ExceptionGroup("", [OSError("x"), StoreUnavailable("full")]), "store"),
        (BaseExceptionGroup("", [KeyboardInterrupt(), AWAY("x")]), "bug"),
    ],
)  # fmt: skip
def test_the_most_final_wins(error: BaseException, kind: Kind) -> None:
    assert classify(error).kind == kind


def test_from_none_replaces_an_error_on_purpose_and_hides_nothing_behind_others() -> None:
    with pytest.raises(AWAY) as replaced:
        try:
            raise REFUSED("perhaps")
        except REFUSED:
            raise AWAY("but the service is being changed") from None
    assert classify(replaced.value).kind == "unavailable"
    with pytest.raises(PlatformError) as behind:
        try:
            raise REFUSED("surely")
        finally:
            try:
                raise OSError("close")
            except OSError:
                raise Unreachable("close", sent=False) from None
    assert classify(behind.value).kind == "refused"


def test_errors_that_refer_to_each_other_in_circles_are_read_once() -> None:
    one, two, three = AWAY("one"), KeyError("two"), REFUSED("three")
    one.__context__, two.__context__, three.__context__ = two, three, one
    two.__cause__ = one
    for each in (one, two, three, ExceptionGroup("", [one, two])):
        each.__context__ = each.__context__ or three
        assert classify(each).kind == "refused"


def test_a_thousand_links_are_no_burden() -> None:
    error: Exception = REFUSED("far away")
    for number in range(1000):
        after = AWAY(str(number))
        after.__context__ = error
        error = after
    assert classify(error).kind == "unavailable"  # beyond what is looked at


trees = st.recursive(
    st.sampled_from([REFUSED("r"), CONFLICT("c"), AWAY("u"), KeyError("k"), OSError("o"), StoreUnavailable("io")]),
    lambda inner: st.lists(inner, min_size=1, max_size=4).map(lambda several: ExceptionGroup("g", several)),
    max_leaves=12,
)


@given(trees)
def test_groups_mean_what_their_most_final_leaf_means(tree: Exception) -> None:
    leaves: list[BaseException] = []
    waiting: list[BaseException] = [tree]
    while waiting:
        each = waiting.pop()
        if isinstance(each, ExceptionGroup):
            waiting += each.exceptions
        else:
            leaves.append(each)
    kinds = {classify(each).kind for each in leaves if not isinstance(each, OSError)} or {"bug"}
    assert classify(tree).kind == min(kinds, key=FINALITY.index)


def test_the_words_are_those_of_the_error_that_counts_with_its_wait() -> None:
    found = classify(ExceptionGroup("", [AWAY("away", retry_after_s=9), AWAY("away", retry_after_s=30), KeyError("x")]))
    assert found.reason == "KeyError: 'x'"
    assert found.retry_after_s is None
    found = classify(ExceptionGroup("", [AWAY("away", retry_after_s=9), AWAY("later", retry_after_s=30)]))
    assert (found.reason, found.retry_after_s) == ("away", 30)
    found = classify(raised(ZeroDivisionError("x" * 1000)))
    assert found.reason.startswith("ZeroDivisionError: xxx")
    assert "(unit/test_backoff.py:" in found.reason
    assert len(found.reason) <= LONGEST_REASON
    assert math.isinf(sane_retry_after(math.inf)) is False
