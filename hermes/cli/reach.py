"""A way to the gateway of a home, whoever runs it: the one that answers at the control socket, else an embedded one.

There is one path for requests, the socket. An embedded gateway is the same tree in this process, without TCP; a
`hermes serve` that starts meanwhile asks it to hand over, and whoever holds the way goes on as its client.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final

import trio

from hermes.control_client import EventStream, call, open_stream
from hermes.errors import ControlFailed, HermesError, InstanceHeld, NoGateway, leaves
from hermes.gateway_options import ServeOptions
from hermes.home import Home, find_socket
from hermes.instance import is_held
from hermes.settings import Config

if TYPE_CHECKING:
    from hermes.gateway import Gateway

LOOK_S: Final = 0.05
WAIT_S: Final = 45.0
"""For a gateway that starts, or that drains before it hands over."""
HAND_OVER_S: Final = 10.0
"""For the gateway that has asked the embedded one to go; then it is taken not to come."""
ASK_S: Final = 10.0
REPEATS: Final = 3
_NOT_YET: Final = frozenset({"starting", "draining"})
_NOT_ACCEPTED: Final = frozenset({"not_ready", "gateway_draining"})


class Reach:
    """The way to the gateway of one home; see `open_reach`.

    Args:
        home: whose gateway it is.
        options: how an embedded one reads its configuration.
        nursery: where an embedded one lives.

    Attributes:
        status: what the gateway said of itself when it was last reached.
    """

    def __init__(self, home: Home, options: Callable[[], ServeOptions], nursery: trio.Nursery) -> None:
        self.home = home
        self.status: dict[str, Any] = {}
        self._options = options
        self._nursery = nursery
        self._embedded: _Embedded | None = None
        self._expected_until = 0.0  # a gateway that took over should answer until then

    async def ask(self, method: str, path: str, body: Any = None, **more: Any) -> Any:
        """One request, as `hermes.control_client.call` makes it, after a gateway has been reached."""
        for left in reversed(range(REPEATS)):
            await self.gateway()
            try:
                return await call(find_socket(self.home), method, path, body, **more)
            except (NoGateway, ControlFailed) as error:
                if not left or not _was_not_accepted(error):
                    raise
        raise AssertionError("unreachable")

    @asynccontextmanager
    async def stream(
        self, method: str, path: str, body: Any = None, *, first_byte_s: float
    ) -> AsyncIterator[EventStream]:
        """Ask for a stream, as `hermes.control_client.open_stream` does, after a gateway has been reached.

        A request is repeated only when no gateway has accepted it.
        """
        left = REPEATS
        while True:
            left -= 1
            await self.gateway()
            begun = False
            try:
                async with open_stream(find_socket(self.home), method, path, body, first_byte_s=first_byte_s) as events:
                    begun = True
                    yield events
                    return
            except (NoGateway, ControlFailed) as error:
                if begun or not left or not _was_not_accepted(error):
                    raise

    async def gateway(self) -> None:
        """Return when a gateway answers that serves turns; starts an embedded one where nobody does.

        Raises:
            NoGateway: none came to answer in time.
            ControlFailed: what answers is no gateway.
            ConfigError, StoreError: an embedded one cannot be started.
        """
        give_up = trio.current_time() + WAIT_S
        while True:
            if await self._answers():
                return
            if trio.current_time() >= give_up:
                raise NoGateway(f"the gateway of {self.home.path} does not come to serve")
            if not await self._embed():
                await trio.sleep(LOOK_S)

    async def _answers(self) -> bool:
        try:
            status = await call(find_socket(self.home), "GET", "/control/status", timeout_s=ASK_S)
        except NoGateway:
            return False
        except ControlFailed as error:
            if error.status:
                raise
            return False  # it went while it was asked
        self.status = status if isinstance(status, dict) else {}
        if self._embedded is None:
            self._expected_until = 0.0
        return self.status.get("status") not in _NOT_YET

    async def _embed(self) -> bool:
        """Start an embedded gateway if nobody holds the home, and wait for it. False: somebody does, or is expected to."""
        if self._embedded is not None or trio.current_time() < self._expected_until or self._is_held():
            return False
        embedded = self._embedded = _Embedded()
        self._nursery.start_soon(self._run, embedded, name="embedded gateway")
        await embedded.ready.wait()
        if isinstance(embedded.failed, InstanceHeld):
            return False
        if embedded.failed is not None:
            raise embedded.failed
        return True

    def _is_held(self) -> bool:
        try:
            return is_held(self.home)
        except OSError:
            return False  # whoever tries to hold it is told why that cannot be

    async def _run(self, embedded: _Embedded) -> None:
        """The task of an embedded gateway."""
        from hermes.config import reload_config

        try:
            options = self._options()
            config = await trio.to_thread.run_sync(reload_config, options)
            with embedded.scope:
                await self._serve(embedded, config, options)
        except* HermesError as group:
            if embedded.gateway is not None:
                raise
            embedded.failed = next(each for each in leaves(group) if isinstance(each, HermesError))
        finally:
            embedded.ready.set()
            self._embedded = None

    async def _serve(self, embedded: _Embedded, config: Config, options: ServeOptions) -> None:
        from hermes.gateway import open_gateway

        async with open_gateway(config, options=options, mode="embedded", announce=_say_nothing) as gateway:
            embedded.gateway, embedded.total_s = gateway, config.shutdown.total_s
            embedded.ready.set()
            await gateway.stop.wait()
        if gateway.stop.reason in ("hand_over", "replace"):
            self._expected_until = trio.current_time() + HAND_OVER_S

    def leave(self) -> None:
        """Ask an embedded gateway to stop; it is gone when the nursery is."""
        embedded = self._embedded
        if embedded is None:
            return
        if embedded.gateway is None:
            embedded.scope.cancel("left")
        else:
            embedded.gateway.stop.request("the command ended", embedded.total_s)


class _Embedded:
    """An embedded gateway: being started, serving, or over."""

    def __init__(self) -> None:
        self.ready = trio.Event()
        self.scope = trio.CancelScope()
        self.gateway: Gateway | None = None
        self.total_s = 0.0
        self.failed: HermesError | None = None


@asynccontextmanager
async def open_reach(home: Home, options: Callable[[], ServeOptions]) -> AsyncIterator[Reach]:
    """A way to the gateway of a home.

    Args:
        home: whose gateway.
        options: how an embedded one would be asked for; called only when one is started.

    Lifetime: enter = nothing is opened yet; exit = an embedded gateway that was started is gone.

    Cancellation: an embedded gateway is cancelled too, and writes how its turns ended.
    """
    async with trio.open_nursery() as nursery:
        reach = Reach(home, options, nursery)
        yield reach
        reach.leave()


def _was_not_accepted(error: NoGateway | ControlFailed) -> bool:
    """Whether a request certainly began nothing, so that it may be made again."""
    return isinstance(error, NoGateway) or (error.status == 503 and error.code in _NOT_ACCEPTED)


def _say_nothing(_: str) -> None:
    """An embedded gateway has nobody to tell but the log."""
