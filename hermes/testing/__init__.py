"""The public kit for testing what runs inside Hermes: the contract of platforms, endings at every step, a census, virtual time.

The names here are the kit's contract with authors of plugins; everything else under `hermes.testing` may change.
"""

from hermes.testing.cancellation import Report, cancel_at_every_step
from hermes.testing.census import LeakCensus, no_leaks
from hermes.testing.check_platform import CLAUSES, Breach, Clause, Subject, check_platform, check_platform_clauses
from hermes.testing.clock import Hold, advance, frozen_clock
from hermes.testing.host import TestHost, TestMemory, open_test_host
from hermes.testing.inbox import RecordingInbox
from hermes.testing.injection import Ending, deterministic_scheduling
from hermes.testing.ports import refusing_port, silent_port
from hermes.testing.service import FakeService, Switch
from hermes.testing.wire_server import WireAnswer, WireRequest, json_answer, open_wire_server

__all__ = [
    "CLAUSES",
    "Breach",
    "Clause",
    "Ending",
    "FakeService",
    "Hold",
    "LeakCensus",
    "RecordingInbox",
    "Report",
    "Subject",
    "Switch",
    "TestHost",
    "TestMemory",
    "WireAnswer",
    "WireRequest",
    "advance",
    "cancel_at_every_step",
    "check_platform",
    "check_platform_clauses",
    "deterministic_scheduling",
    "frozen_clock",
    "json_answer",
    "no_leaks",
    "open_test_host",
    "open_wire_server",
    "refusing_port",
    "silent_port",
]
