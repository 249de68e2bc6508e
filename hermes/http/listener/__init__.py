"""A small ASGI server for HTTP/1.1 on httptools and trio; it knows nothing of what it serves.

What it refuses, with which status, and why it exists: `docs/explanation/http-listener.md`.
"""

from hermes.http.listener.exchange import Application, ClientLeft
from hermes.http.listener.limits import Limits, raise_descriptor_limit
from hermes.http.listener.server import Server, Statistics, open_server

__all__ = [
    "Application",
    "ClientLeft",
    "Limits",
    "Server",
    "Statistics",
    "open_server",
    "raise_descriptor_limit",
]
