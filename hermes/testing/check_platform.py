"""Whether a platform keeps the contract: eight clauses, each checked against a fake of the platform's service.

In a test of your own, with pytest and nothing else:

    @pytest.mark.parametrize("clause", check_platform_clauses())
    def test_postbox(clause):
        clause(SUBJECT)

The checks are plain functions: each runs trio by itself, on a clock that stands still.
"""

from __future__ import annotations

from typing import Final

from hermes.testing.clauses.bench import on_bench
from hermes.testing.clauses.lifetimes import entered_or_nothing, gone_on_every_path, receive_goes_on
from hermes.testing.clauses.receiving import deliver_before_acknowledging
from hermes.testing.clauses.sending import no_retries_and_no_waiting, one_visible_effect
from hermes.testing.clauses.source import nothing_global
from hermes.testing.clauses.subject import Breach, Clause, Subject
from hermes.testing.clauses.translation import pure_translation

__all__ = ["CLAUSES", "Breach", "Clause", "Subject", "check_platform", "check_platform_clauses"]

CLAUSES: Final = (
    Clause(1, "enter", "entered, it is authenticated and usable, or it raises and leaves nothing", on_bench(entered_or_nothing)),
    Clause(2, "exit", "left on any path, it leaves no task, socket, thread or file", on_bench(gone_on_every_path)),
    Clause(3, "receive", "`receive` never returns", on_bench(receive_goes_on)),
    Clause(
        4, "deliver", "deliver comes before the acknowledgement, and what was cut comes again under the same ids",
        on_bench(deliver_before_acknowledging),
    ),
    Clause(
        5, "send", "`send` and `edit` raise only PlatformErrors, may be called from several tasks, have one visible effect",
        on_bench(one_visible_effect),
    ),
    Clause(6, "once", "no retries, no waiting", on_bench(no_retries_and_no_waiting)),
    Clause(7, "source", "no globals, no environment, no asyncio", nothing_global),
    Clause(8, "translate", "translation is pure", pure_translation),
)  # fmt: skip


def check_platform_clauses() -> list[Clause]:
    """The clauses, for `pytest.mark.parametrize`; each is called with a `Subject`, and its name is the test's."""
    return list(CLAUSES)


def check_platform(subject: Subject) -> None:
    """Check all clauses.

    Args:
        subject: the platform, its fake service, and samples.

    Raises:
        Breach: clauses do not hold; the text tells of each of them.
    """
    breaches = []
    for clause in CLAUSES:
        try:
            clause(subject)
        except Breach as breach:
            breaches.append(str(breach))
    if breaches:
        raise Breach("\n".join(breaches))
