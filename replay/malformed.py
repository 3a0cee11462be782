"""Requests that are no message of their method: INVALID_ARGUMENT with a sentence, before a handler sees them.

gRPC by itself would end the call with UNKNOWN and leave a traceback in the log. Streams of requests are read
by their handlers, who tell the same.
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, TypeAlias

import grpc
import grpc.aio
from google.protobuf.message import DecodeError

from replay.access import SERVICE

Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"  # generic in the stubs alone
Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"


class MessageCheck(grpc.aio.ServerInterceptor):  # type: ignore[type-arg] # as above
    """Reads the request of every call of the replay service that has one."""

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler:
        """See grpc.aio.ServerInterceptor."""
        handler = await continuation(handler_call_details)
        ours = handler_call_details.method.startswith(SERVICE)
        if not handler or not ours or handler.request_streaming:
            return handler
        return _reading(handler)


def _reading(handler: Handler) -> Handler:
    """The same handler, which is given bytes and reads them itself."""
    read, answer = handler.request_deserializer, handler.response_serializer
    behaviour: Any = handler.unary_stream if handler.response_streaming else handler.unary_unary
    assert read is not None  # only streams are read by their handlers

    async def message(request: bytes, context: Context) -> object:
        try:
            return read(request)
        except DecodeError as error:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"request: is no such message ({error})")

    async def one(request: bytes, context: Context) -> object:
        return await behaviour(await message(request, context), context)

    async def many(request: bytes, context: Context) -> AsyncIterator[object]:
        async for response in behaviour(await message(request, context), context):
            yield response

    if handler.response_streaming:
        return grpc.unary_stream_rpc_method_handler(many, None, answer)
    return grpc.unary_unary_rpc_method_handler(one, None, answer)
