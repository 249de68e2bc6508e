"""The core's Inbox: what platforms deliver is checked, judged and committed; then whoever is concerned is woken.

Rows are the truth and every wake a hint, so nothing is lost where the process dies between the two.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping

from hermes.agent.transcription import endpoint_of
from hermes.attached import Senses
from hermes.commands import as_typed
from hermes.errors import StoreUnavailable
from hermes.events import Address, InboundEvent
from hermes.inbound import BadEvent, check_event
from hermes.observe.logs import get_log
from hermes.platform import EMPTY
from hermes.platform_config import AccountConfig
from hermes.session_keys import session_key
from hermes.session_reset import reset_due, reset_text
from hermes.sessions import Sessions
from hermes.settings import Config, SessionResetConfig
from hermes.store import Store
from hermes.store.reception import Delivered, Place
from hermes.store.rows import Next

log = get_log(__name__)

MAX_EVENTS = 1000  # of one delivery
SAMPLE = 300  # characters of what was set aside, for the log


class Reception:
    """Inboxes for accounts.

    Args:
        store: where events are committed.
        sessions: woken for what is to be answered; None while there are none, whose sweep finds it later.
        config: asked at each delivery: access is what it is now.
        wake_lane: told of an address to which something is to be sent.
        wake_commands: told that a command waits.
        wake_fetching: told that a message waits for files.
        accepted: told that messages wait.

    Attributes:
        counts: what became of how many events, since the start.
    """

    def __init__(
        self,
        store: Store,
        sessions: Callable[[], Sessions | None],
        config: Callable[[], Config],
        *,
        wake_lane: Callable[[Address], None],
        wake_commands: Callable[[], None],
        wake_fetching: Callable[[], None] = lambda: None,
        accepted: Callable[[], None] = lambda: None,
    ) -> None:
        self.counts: Counter[str] = Counter()
        self._store = store
        self._sessions = sessions
        self._config = config
        self._wake_lane = wake_lane
        self._wake_commands = wake_commands
        self._wake_fetching = wake_fetching
        self._accepted = accepted

    def inbox_for(self, account: str, _generation: int) -> AccountInbox:
        """The inbox of one connection."""
        return AccountInbox(account, self)

    async def cursors_for(self, account: str) -> Mapping[str, bytes]:
        """How far an account has read."""
        return await self._store.inbox.cursors(account)

    async def deliver(
        self, account: str, events: tuple[InboundEvent, ...], cursors: Mapping[str, bytes]
    ) -> frozenset[str]:
        """Commit; see `hermes.platform.Inbox`."""
        config = self._config()
        configured: AccountConfig | None = config.platforms.get(account)
        if configured is None:  # removed in this very moment: its service keeps what nobody confirmed
            self.counts["unclaimed"] += len(events)
            raise StoreUnavailable("closed", f"{account} is not configured any more")
        good = tuple(event for event in events if self._is_good(event, account))
        place = Place(
            account=account, platform=configured.spec.name, access=configured.access,
            busy=configured.access.busy or config.sessions.busy,
            pairing_text=lambda code: pairing_text(account, code), merge_window_s=config.sessions.merge_window_s,
            reset=lambda last_at, now: _reset(config.session_reset, configured.command_prefix, last_at, now),
            fetch_s=config.media.wait_s, hear_s=config.transcription.timeout_s, senses=senses(config),
        )  # fmt: skip
        sessions = self._sessions()
        begun = done = None
        if sessions is not None and len(good) == 1 and _may_begin(place, good[0], cursors):
            begun = done = await self._begin(sessions, place, good[0], cursors)
        if done is None:
            done = await self._store.inbox.deliver(place, good, cursors)
        self.counts.update(done.counts)
        if (sessions := self._sessions()) is not None:
            sessions.delivered(done.rows, begun=begun is not None)
            for former, key in done.renamed:
                sessions.renamed(former, key)
        for address in done.addresses:
            self._wake_lane(address)
        if done.commands:
            self._wake_commands()
        if done.files:
            self._wake_fetching()
        if done.rows:
            self._accepted()
        return frozenset(each.event_id for each in done.rows)

    async def _begin(
        self, sessions: Sessions, place: Place, event: InboundEvent, cursors: Mapping[str, bytes]
    ) -> Delivered | None:
        """Commit a message together with the beginning of its turn, if its session is free for that."""
        key = session_key(place.access, event)

        async def commit(turn_id: str, left: frozenset[str], remembers: bool) -> tuple[Delivered, Next | None]:
            inbox = self._store.inbox
            return await inbox.deliver_and_take_up(place, event, cursors, key, turn_id, left, remembers=remembers)

        newer = (lambda: event.key) if place.busy == "interrupt" and not event.attended else None
        return await sessions.begin(key, commit, attended=event.attended, newer=newer)

    def left(self, event_id: str) -> None:
        """End the turn of an attended event, or the row before it begins."""
        if (sessions := self._sessions()) is not None:
            sessions.left(event_id)

    def _is_good(self, event: InboundEvent, account: str) -> bool:
        try:
            check_event(event, account)
        except BadEvent as error:
            self.quarantine(account, str(error), event)
            return False
        return True

    def quarantine(self, account: str, because: str, sample: object) -> None:
        """Count what cannot be read, and log a piece of it."""
        self.counts["quarantined"] += 1
        if isinstance(sample, (str, bytes)):
            sample = sample[:SAMPLE]
        log.warning("event.quarantined", account=account, because=because[:SAMPLE], sample=ascii(sample)[:SAMPLE])


def _may_begin(place: Place, event: InboundEvent, cursors: Mapping[str, bytes]) -> bool:
    """Whether a lone event may be begun with its commit: one that somebody waits for, or a plain message to us that waits for nothing.

    The transaction judges for itself: it alone knows who was let in, and what else is in the mailbox.
    """
    if event.attended:
        return not cursors
    if event.kind != "message" or event.album or event.continues or event.attachments:
        return False
    if event.chat_kind != "dm" and not event.to_us and place.access.require_mention:
        return False
    return not event.text.lstrip().startswith("/")


def senses(config: Config) -> Senses:
    """What can be done with files that come now."""
    return Senses(sees=config.model.vision, hears=endpoint_of(config) is not None, saves=config.media.save)


class AccountInbox:
    """An `Inbox`; progress is noted by whoever runs `receive`."""

    def __init__(self, account: str, reception: Reception) -> None:
        self._account = account
        self._reception = reception

    async def deliver(self, *events: InboundEvent, cursors: Mapping[str, bytes] = EMPTY) -> frozenset[str]:
        """Commit in transactions of bounded size; the cursors move with the last."""
        fresh: frozenset[str] = frozenset()
        for start in range(0, max(len(events), 1), MAX_EVENTS):
            part = events[start : start + MAX_EVENTS]
            last = start + MAX_EVENTS >= len(events)
            fresh |= await self._reception.deliver(self._account, part, cursors if last else EMPTY)
        return fresh

    def alive(self, path: str, *, next_within_s: float) -> None:
        """Nothing to do here: the run's own inbox keeps the promise."""

    def left(self, event_id: str) -> None:
        """Nobody waits for an attended event any more."""
        self._reception.left(event_id)

    def quarantine(self, because: str, sample: object) -> None:
        """Something could not be read."""
        self._reception.quarantine(self._account, because, sample)


def _reset(config: SessionResetConfig, prefix: str, last_at: float, now: float) -> str | None:
    due = reset_due(config, last_at, now)
    return None if due is None else as_typed(reset_text(due, config), prefix)


def pairing_text(account: str, code: str) -> str:
    """What a stranger is told, in plain words."""
    return (
        f"Hello. I don't know you yet. If you own this bot, let yourself in on its machine within an hour:\n\n"
        f"hermes pairing approve {account} {code}"
    )
