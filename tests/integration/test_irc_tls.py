"""IRC over TLS: a server whose certificate is trusted, and one whose is not."""

from __future__ import annotations

import shutil
import ssl
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
import trio

from hermes.errors import PlatformUnavailable
from hermes.events import Address, Content
from hermes.net import open_network
from hermes.net.streams import make_stream_factory
from hermes.platform import Secret
from hermes.testing import open_test_host
from hermes.testing.fake_irc import open_fake_irc
from platforms.irc import IrcConfig
from platforms.irc import platform as spec


async def test_a_certificate_decides_whether_anything_is_said(tmp_path: Path) -> None:
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("the openssl command is not installed: TLS is not tested")
    key, certificate = tmp_path / "key.pem", tmp_path / "cert.pem"
    await trio.run_process(
        [openssl, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
         "-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(certificate)],
        stderr=subprocess.DEVNULL,
    )  # fmt: skip
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(str(certificate), str(key))
    trusting = ssl.create_default_context(cafile=str(certificate))
    async with (
        open_fake_irc() as irc,
        open_network(tls=trusting) as network,
        open_test_host("irc") as host,
        trio.open_nursery() as nursery,
    ):

        async def serve(stream: trio.SocketStream) -> None:
            secured = trio.SSLStream(stream, context, server_side=True, https_compatible=True)
            await irc.serve(secured)

        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(trio.serve_listeners, serve, listeners)
        port = listeners[0].socket.getsockname()[1]
        config = IrcConfig(server="127.0.0.1", port=port, nick="hermes", sasl_password=Secret("secret"))
        with pytest.raises(PlatformUnavailable, match="tls"):
            async with spec.open(config, host):  # which knows nothing of this certificate
                pass
        assert "AUTHENTICATE" not in irc.asked
        async with spec.open(config, replace(host, tcp=make_stream_factory(network))) as platform:
            await platform.send(Address("irc", "friend"), Content(text="in private"), key="k", reply=None)
        assert irc.shown["friend"] == ["in private"]
        nursery.cancel_scope.cancel()
