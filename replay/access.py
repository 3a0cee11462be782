"""What each role may do, by the token that it shows. Whatever is not allowed here is refused."""

import hashlib
import re
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeAlias

import grpc
import grpc.aio

from common.errors import BadInputError
from common.tls import read_secret

SERVICE = "/vdfd.v1.Replay/"
HEALTH = "/grpc.health.v1.Health/"

ROLES: Mapping[str, frozenset[str]] = {
    "actor": frozenset({"RegisterSpec", "GetStatus", "Insert", "FetchWeights"}),
    "evaluator": frozenset({"RegisterSpec", "GetStatus", "ClaimEvaluation", "ReportEvaluation"}),
    "learner": frozenset({"GetStatus", "Sample", "UpdatePriorities", "PublishWeights", "ListEvaluations"}),
    "observer": frozenset({"GetStatus", "GetStats", "ListEvaluations"}),
    "operator": frozenset(
        {"RegisterSpec", "GetStatus", "GetStats", "ReadWindow", "Import", "ListEvaluations"}
    ),
}
"""Methods of the replay service by role. Everybody with a token may ask for its health."""

TOKEN_LINE = re.compile(r"([a-z]+) ([0-9a-f]{64})")
Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"  # generic in the stubs alone


def read_tokens(path: str) -> dict[str, str]:
    """Role by the SHA-256 of its token. Raises BadInputError for a file that is not understood.

    The file has a line "ROLE HASH" per token, so it does not hold the tokens themselves. A role may have
    several: that is how one is replaced without a moment in which neither is right.
    """
    roles: dict[str, str] = {}
    lines = read_secret("replay.tokens_file", path).decode(errors="replace").splitlines()
    for number, line in enumerate(lines, start=1):
        match = TOKEN_LINE.fullmatch(line.strip())
        if match is None or match[1] not in ROLES:
            raise BadInputError(
                f"replay.tokens_file: line {number} of {path} is not a role ({', '.join(ROLES)}) and the "
                "SHA-256 of its token in hexadecimal."
            )
        roles[match[2]] = match[1]
    return roles


class AccessCheck(grpc.aio.ServerInterceptor):  # type: ignore[type-arg] # as above
    """Lets a call through if its token's role may make it."""

    def __init__(self, roles: Mapping[str, str]) -> None:
        self._roles = roles

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler:
        """See grpc.aio.ServerInterceptor."""
        handler = await continuation(handler_call_details)
        refusal = self._refusal(handler_call_details)
        # An unknown method has no handler, and ends with UNIMPLEMENTED whoever asks.
        return handler if refusal is None or not handler else _refusing(handler, *refusal)

    def _refusal(self, call: grpc.HandlerCallDetails) -> tuple[grpc.StatusCode, str] | None:
        given = dict(call.invocation_metadata).get("authorization", "")
        # Compared by its hash: how long that takes tells nothing about the token.
        hashed = hashlib.sha256(str(given).removeprefix("Bearer ").encode()).hexdigest()
        role = self._roles.get(hashed)
        if role is None:
            return grpc.StatusCode.UNAUTHENTICATED, "no token that is known here; set rpc.token_file"
        if call.method.startswith(HEALTH) or call.method.removeprefix(SERVICE) in ROLES[role]:
            return None
        return grpc.StatusCode.PERMISSION_DENIED, f"the token is that of {role}, which may not do this"


def _refusing(handler: Handler, code: grpc.StatusCode, message: str) -> Handler:
    """A handler of the same shape that only refuses."""

    async def refuse(_request: object, context: "grpc.aio.ServicerContext[Any, Any]") -> None:
        await context.abort(code, message)

    make = {
        (False, False): grpc.unary_unary_rpc_method_handler,
        (False, True): grpc.unary_stream_rpc_method_handler,
        (True, False): grpc.stream_unary_rpc_method_handler,
        (True, True): grpc.stream_stream_rpc_method_handler,
    }[handler.request_streaming, handler.response_streaming]
    return make(refuse, handler.request_deserializer, handler.response_serializer)
