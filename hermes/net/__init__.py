"""The only importers of httpx2: TLS, proxies, HTTP clients, and what their exceptions mean."""

from hermes.net.client import NetClient
from hermes.net.errors import HTTP_ERRORS
from hermes.net.network import (
    Network,
    NetworkStatistics,
    close_quietly,
    connect_timeout,
    open_network,
)
from hermes.net.plugin_http import make_http_factory
from hermes.net.transport import HttpResponse, check_urls

__all__ = [
    "HTTP_ERRORS",
    "HttpResponse",
    "NetClient",
    "Network",
    "NetworkStatistics",
    "check_urls",
    "close_quietly",
    "connect_timeout",
    "make_http_factory",
    "open_network",
]
