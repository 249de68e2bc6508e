"""The public kit for testing what runs inside Hermes: endings at every step, a census of what is held, virtual time.

The names here are the kit's contract with authors of plugins; everything else under `hermes.testing` may change.
"""

from hermes.testing.cancellation import Report, cancel_at_every_step
from hermes.testing.census import LeakCensus, no_leaks
from hermes.testing.clock import Hold, advance, frozen_clock
from hermes.testing.injection import Ending, deterministic_scheduling
from hermes.testing.ports import refusing_port, silent_port

__all__ = [
    "Ending",
    "Hold",
    "LeakCensus",
    "Report",
    "advance",
    "cancel_at_every_step",
    "deterministic_scheduling",
    "frozen_clock",
    "no_leaks",
    "refusing_port",
    "silent_port",
]
