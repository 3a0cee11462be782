"""Who may talk to whom: certificates on both sides of a connection, and a token that says what one may do."""

from pathlib import Path

import grpc

from common.errors import BadInputError
from common.settings import RpcSettings


def channel_credentials(settings: RpcSettings) -> grpc.ChannelCredentials | None:
    """A client's certificate and token; None if connections are not encrypted.

    Raises BadInputError for a file that cannot be read.
    """
    if not settings.encrypted:
        return None
    ca, certificate, key = _pem(settings)
    credentials = grpc.ssl_channel_credentials(ca, key, certificate)
    if settings.token_file:
        token = read_secret("rpc.token_file", settings.token_file).decode().strip()
        # A call credential: gRPC sends it on encrypted connections only.
        call_credentials = grpc.access_token_call_credentials(token)
        credentials = grpc.composite_channel_credentials(credentials, call_credentials)
    return credentials


def server_credentials(settings: RpcSettings) -> grpc.ServerCredentials | None:
    """The service's certificate; clients without one of its authority are refused. None: not encrypted."""
    if not settings.encrypted:
        return None
    ca, certificate, key = _pem(settings)
    return grpc.ssl_server_credentials([(key, certificate)], root_certificates=ca, require_client_auth=True)


def read_secret(setting: str, path: str) -> bytes:
    """A file's bytes. Raises BadInputError that names the setting if it cannot be read or is empty."""
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise BadInputError(f"{setting} is {path}, which cannot be read: {error.strerror}.") from error
    if not content.strip():
        raise BadInputError(f"{setting} is {path}, which is empty.")
    return content


def _pem(settings: RpcSettings) -> tuple[bytes, bytes, bytes]:
    return (
        read_secret("rpc.tls_ca_file", settings.tls_ca_file),
        read_secret("rpc.tls_certificate_file", settings.tls_certificate_file),
        read_secret("rpc.tls_key_file", settings.tls_key_file),
    )
