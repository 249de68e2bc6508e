"""How much fits into the process: connections, turns, commands and model clients, sized to its descriptors. Pure but for one call."""

from __future__ import annotations

from dataclasses import replace

from hermes.settings import Config

RESERVED = 36  # the database and its log, the lock, listening sockets, epoll, the log file, the service manager
PER_COMMAND = 4
PER_TURN = 1  # the connection to the provider
PER_CONNECTION = 1


def fit(config: Config, descriptors: int) -> Config:
    """The configuration with its counts reduced to what a limit of descriptors can hold together.

    Args:
        config: as configured.
        descriptors: the soft limit; negative or 0 means unlimited.

    Returns:
        the same where everything fits. Otherwise commands get an eighth of what is left, turns three eighths, connections
        the rest; each at least 1.
    """
    room = descriptors - RESERVED
    wanted = (
        config.http.max_connections * PER_CONNECTION
        + config.http.max_concurrent_turns * PER_TURN
        + config.terminal.max_commands * PER_COMMAND
    )
    if descriptors <= 0 or wanted <= room:
        return config
    commands = min(config.terminal.max_commands, max(1, room // 8 // PER_COMMAND))
    turns = min(config.http.max_concurrent_turns, max(1, room * 3 // 8 // PER_TURN))
    rest = room - commands * PER_COMMAND - turns * PER_TURN
    connections = min(config.http.max_connections, max(1, rest // PER_CONNECTION))
    return replace(
        config,
        http=replace(config.http, max_connections=connections, max_concurrent_turns=turns),
        terminal=replace(config.terminal, max_commands=commands),
        model=replace(config.model, max_clients=min(config.model.max_clients, turns)),
    )
