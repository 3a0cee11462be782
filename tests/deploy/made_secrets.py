"""Certificates and tokens as `make certs` makes them."""

import subprocess
from pathlib import Path

from common.settings import RpcSettings

SCRIPT = Path(__file__).parents[2] / "deploy" / "make_secrets.sh"


def make_secrets(directory: Path) -> Path:
    subprocess.run(["sh", SCRIPT, directory], check=True, capture_output=True)
    return directory


def rpc_settings(secrets: Path, part: str, *, address="127.0.0.1:0", token=True, **changes) -> RpcSettings:
    """How a part talks with its own certificate and, unless it is the service, its token."""
    files = {
        "tls_ca_file": str(secrets / part / "ca.crt"),
        "tls_certificate_file": str(secrets / part / "tls.crt"),
        "tls_key_file": str(secrets / part / "tls.key"),
        "token_file": str(secrets / part / "token") if token else "",
    }
    return RpcSettings(address=address, **files | changes)
