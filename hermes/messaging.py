"""The side of the gateway that faces messaging services: accounts, delivery, fetching, commands, receiving, nested in this order.

Left from the inside out: first nothing more is received, then commands end, then nothing is fetched, then lanes send
what they can, then accounts are left.
Sessions are opened inside of all this; until they are there, and after they are gone, events are committed all the same.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Final

import msgspec
import trio

from hermes.access import AccessPolicy
from hermes.accounts import AccountStatus
from hermes.agent.transcription import Recording, endpoint_of
from hermes.blobs import Blobs
from hermes.commanding import GatewayView, open_commanding
from hermes.commands import as_typed
from hermes.connections import Connections, open_connections
from hermes.current import Current
from hermes.delivery import MARK_ROOM, Delivery, open_delivery
from hermes.errors import AccountDown, ModelUnavailable, StoreUnavailable, ToolError
from hermes.events import Address, StoredContent
from hermes.fetching import open_fetching
from hermes.filework import FileWork, Hear
from hermes.forwarding import AccountOutbox
from hermes.generation import AccountPlan
from hermes.hooks import Hooks
from hermes.hosting import open_hosts
from hermes.outgoing import Outgoing, find_in
from hermes.platform import Capabilities
from hermes.reception import Reception, senses
from hermes.replies import Buttons, Draw
from hermes.sessions import Sessions
from hermes.settings import Config
from hermes.stopping import RESTART_CODE, Stop
from hermes.store import Store
from hermes.store.rows import Claim
from hermes.tools.sending import sending_tools
from hermes.toolset import Tool

BRIEF: Final = 500  # characters or bytes of a message; with less, a list is many messages, each at the service's pace

if TYPE_CHECKING:
    from hermes.agent.model import ModelDoor


class Messaging:
    """The accounts as the rest of the gateway sees them; it is `Replies` to turns. See `open_messaging`.

    Attributes:
        connections, delivery: None in a gateway that has no accounts by its mode.
        reception: what was received.
        outgoing: sends files.
    """

    def __init__(self, current: Current) -> None:
        self.connections: Connections | None = None
        self.delivery: Delivery | None = None
        self.reception: Reception | None = None
        self.outgoing: Outgoing | None = None
        self._current = current
        self._sessions: Sessions | None = None
        self._there = trio.Event()

    def parts(self, address: Address, markdown: str, buttons: Buttons = ()) -> Sequence[StoredContent]:
        """A text as it will be sent to an address; as one plain part where its account is not configured any more."""
        try:
            can = self.capabilities(address.account)
        except AccountDown:
            return (StoredContent(text=markdown),)
        parts = render_parts(markdown, can)
        if not (buttons and can.buttons and parts):
            return parts
        return (*parts[:-1], msgspec.structs.replace(parts[-1], buttons=buttons))

    def typed(self, address: Address, text: str) -> str:
        """Words of ours, with the commands that they name as people type them there."""
        configured = self._current.config.platforms.get(address.account)
        return text if configured is None else as_typed(text, configured.command_prefix)

    def wake(self, address: Address) -> None:
        """Something was committed for this address."""
        if self.delivery is not None:
            self.delivery.wake(address)

    @asynccontextmanager
    async def showing(self, claim: Claim) -> AsyncIterator[Draw | None]:
        """Show that a turn is at work, and its reply while it is written."""
        row = claim.rows[-1]
        if self.delivery is None or row.address is None:
            yield None
            return
        async with (
            self.delivery.open_live(row.address, reply=row.reply, turn_id=claim.turn_id, resumes=claim.resumes) as live,
            self.delivery.open_typing(row.address),  # ends first: a request that hangs does not keep it
            self.delivery.open_progress(live) as progress,
        ):
            yield progress

    def begin_anew(self, account: str) -> None:
        """An account is another one at its service from now on."""
        if self.delivery is not None:
            self.delivery.begin_anew(account)

    def capabilities(self, account: str) -> Capabilities:
        """What an account's service can do, connected or not. Raises AccountDown for one that is not configured."""
        configured = self._current.config.platforms.get(account)
        if configured is None:
            raise AccountDown(account, "removed", "it is not configured")
        found: Capabilities = configured.spec.capabilities
        return found

    def attach(self, sessions: Sessions) -> None:
        """What is received is answered from here on."""
        self._sessions = sessions
        self._there.set()

    async def sessions(self) -> Sessions:
        """The sessions, once they are open."""
        await self._there.wait()
        assert self._sessions is not None
        return self._sessions

    def sessions_now(self) -> Sessions | None:
        """The sessions, if they are open."""
        return self._sessions

    def wake_session(self, key: str) -> None:
        """Something in this mailbox waits no more; while there are no sessions, their sweep finds it."""
        if self._sessions is not None:
            self._sessions.wake(key)

    def tools(self) -> tuple[Tool, ...]:
        """What conversations on messaging services are offered beside everything else."""
        if self.outgoing is None or "sending" not in self._current.config.agent.tools:
            return ()
        return sending_tools(self._send_file)

    async def _send_file(self, to: Address, path: str, caption: str) -> str:
        assert self.outgoing is not None
        try:
            file, _ = await self.outgoing.send_one(to, path, caption)
        except (AccountDown, StoreUnavailable) as error:
            raise ToolError(f"it cannot be sent now: {error}") from None
        return f"{file.name}, {file.size_bytes:,} bytes: sent; it arrives in its turn, also after an outage"

    def policy(self, account: str) -> AccessPolicy | None:
        """Who may speak at an account now; None for one that is not configured (any more)."""
        configured = self._current.config.platforms.get(account)
        return None if configured is None else configured.access

    def is_brief(self, account: str) -> bool:
        """Whether an account's service takes a message of a few lines only, and so more of them one after the other."""
        configured = self._current.config.platforms.get(account)
        return configured is not None and configured.spec.capabilities.max_text < BRIEF

    def accounts(self) -> tuple[AccountStatus, ...]:
        """Each account's state."""
        return self.connections.table.snapshot(trio.current_time()) if self.connections is not None else ()

    def counts(self) -> Counter[str]:
        """What became of how many events since the start."""
        return self.reception.counts if self.reception is not None else Counter()


def render_parts(markdown: str, can: Capabilities) -> tuple[StoredContent, ...]:
    """A text in a service's dialect, each part short enough."""
    from hermes.rendering import render  # only who speaks to a service pays for the parser

    return tuple(StoredContent(text=each, dialect=can.dialect) for each in render(markdown, can, suffix_room=MARK_ROOM))


def plans(config: Config) -> Mapping[str, AccountPlan]:
    """The configured accounts as connections want them."""
    return {
        name: AccountPlan(account=name, spec=each.spec, config=each.config, required=each.required)
        for name, each in config.platforms.items()
    }


def _hearing(current: Current, door: ModelDoor) -> Hear:
    """Puts recordings in words, as is configured at the time."""

    async def hear(recording: Recording) -> str:
        config = current.config
        endpoint = endpoint_of(config)
        if endpoint is None:
            raise ModelUnavailable("no transcription model is configured")
        chosen = config.transcription
        return await door.transcribe(
            replace(recording, language=chosen.language), endpoint=endpoint, timeout_s=chosen.timeout_s
        )

    return hear


def _view(store: Store, current: Current, stop: Stop, messaging: Messaging, connections: Connections) -> GatewayView:
    """What commands know of the gateway."""
    return GatewayView(
        store=store, model=lambda: current.config.model.primary.model, accounts=messaging.accounts,
        retry_account=connections.retry, policy=messaging.policy, is_brief=messaging.is_brief,
        restart=lambda: stop.request("/restart", current.config.shutdown.total_s, exit_code=RESTART_CODE),
        ends=lambda: stop.asked and stop.exit_code != RESTART_CODE,
    )  # fmt: skip


@asynccontextmanager
async def open_messaging(
    store: Store, current: Current, stop: Stop, hooks: Hooks, blobs: Blobs, door: ModelDoor, *, mode: str
) -> AsyncIterator[Messaging]:
    """Connect the accounts, deliver, run commands, receive.

    Args:
        hooks: where webhooks are mounted.
        blobs: where files are kept.
        door: who puts recordings in words.
        mode: an `embedded` gateway touches no row of any account.

    Lifetime: enter = accounts connect beside, what an earlier process left is being delivered, and events are committed.
    Exit = as the module says, within what the stop leaves.
    """
    messaging = Messaging(current)
    if mode == "embedded":
        yield messaging
        return
    async with (
        open_hosts(store, hooks, current.config, lambda plan: AccountOutbox(plan, store, messaging, current)) as hosts,
        open_connections(
            plans(current.config), settings=lambda: current.config.supervision, host=hosts.open, stop_by=lambda: stop.by,
            store_ready=store.database.wait_available, release=hosts.release,
            renewed=messaging.begin_anew,
        ) as connections,
        open_delivery(
            store, lease=connections.lease, wait_connected=connections.connected, capabilities=messaging.capabilities,
            settings=lambda: current.config.delivery, render=render_parts,
            flush_by=lambda: stop.within(current.config.shutdown.flush_timeout_s),
            accounts=lambda: current.config.platforms.keys(), find_file=find_in(blobs),
        ) as delivery,
        open_fetching(
            store, blobs, lease=connections.lease, wait_connected=connections.connected,
            settings=lambda: current.config.media, wake_session=messaging.wake_session,
            work=FileWork(
                blobs, lambda: senses(current.config), _hearing(current, door),
                lambda: (current.config.workspace, current.config.home),
            ),
        ) as fetcher,
        open_commanding(
            store, messaging.sessions, messaging, _view(store, current, stop, messaging, connections)
        ) as commanding,
    ):  # fmt: skip
        current.listen(lambda config: connections.apply(plans(config)))
        reception = Reception(
            store,
            messaging.sessions_now,
            current,
            wake_lane=delivery.wake,
            wake_commands=commanding.wake,
            wake_fetching=fetcher.wake,
            accepted=delivery.accepted,
        )
        messaging.connections, messaging.delivery, messaging.reception = connections, delivery, reception
        messaging.outgoing = Outgoing(blobs, delivery, current, messaging.capabilities, render_parts)
        async with connections.receiving(reception.inbox_for, reception.cursors_for):
            yield messaging
