"""Why a connection does not come about: gRPC itself only says that its socket was closed.

In TLS 1.3 the service judges a client's certificate when the client believes the handshake to be over, and
gRPC's service then closes the connection without a word. Python's own TLS tells that from a service that is
down.
"""

import socket
import ssl

from common.errors import FatalError
from common.settings import RpcSettings

TIMEOUT_S = 1.0


def check_certificates(settings: RpcSettings) -> None:
    """Raises FatalError if the service at `settings.address` and this client do not accept each other.

    Returns if they do, and also if nobody answers or the connection breaks: that may be over soon.
    """
    try:
        refusal = _refusal(settings) if settings.encrypted else _refusal_in_the_clear(settings)
    except OSError:
        return
    if refusal is not None:
        raise FatalError(f"The replay service at {settings.address} {refusal}.")


def _refusal(settings: RpcSettings) -> str | None:
    context = ssl.create_default_context(cafile=settings.tls_ca_file)
    context.load_cert_chain(settings.tls_certificate_file, settings.tls_key_file)
    try:
        # Twice, because a service that ends just now closes the connection as well.
        accepted = _greeted(settings.address, context) or _greeted(settings.address, context)
    except ssl.SSLCertVerificationError as error:
        return f"has a certificate that is not believed here ({error.verify_message}); see rpc.tls_ca_file"
    except ssl.SSLError as error:
        if error.reason != "WRONG_VERSION_NUMBER":
            raise
        return "does not encrypt its connections; set rpc.tls_* on both sides or on none"
    return None if accepted else "refused this client's certificate; see rpc.tls_certificate_file"


def _refusal_in_the_clear(settings: RpcSettings) -> str | None:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    _greeted(settings.address, context)  # fails with a service that does not encrypt either
    return "refused this client, which shows no certificate; set rpc.tls_*"


def _greeted(address: str, context: ssl.SSLContext) -> bool:
    """Shakes hands; whether the service then begins to talk, as it does with whom it accepts."""
    context.set_alpn_protocols(["h2"])
    host, _, port = address.rpartition(":")
    host = host.strip("[]")
    with (
        socket.create_connection((host, int(port)), TIMEOUT_S) as plain,
        context.wrap_socket(plain, server_hostname=host) as encrypted,
    ):
        return bool(encrypted.recv(1))
