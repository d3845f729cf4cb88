"""The one interceptor: authenticate, authorise, demand a deadline, parse, translate errors.

Every method of every service on the port passes here, health and reflection too. An exception
that no table knows is logged by its type alone and reaches the client as a bare INTERNAL: its
text may hold anything, a record's value included. Requests come here as bytes: what gRPC cannot
parse it would answer by UNKNOWN and the parser's own words, before it asked who calls.
"""

from __future__ import annotations

import asyncio
import contextvars
import functools
import inspect
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Final

import grpc
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

from privacy.errors import LedgerFault
from protos import Reason
from protos.limits import LONGEST_SECONDS
from teacher_server.errors import INTERNAL, RequestError, status_of
from teacher_server.identity import LOOPBACK, Identity, authorise, identify
from teacher_server.observer import Call, Observer, notes, start_notes
from teacher_server.pushback import with_pushback
from teacher_server.revocation import Revocations

log = logging.getLogger(__name__)

_ROUNDING_SECONDS: Final = 1.0
"""gRPC sends a long deadline in whole seconds, rounded up."""

_Parse = Callable[[bytes], Any]

_CODE_NAMES: Final[dict[int, str]] = {code.value[0]: code.name for code in grpc.StatusCode}

_caller: contextvars.ContextVar[Identity] = contextvars.ContextVar("caller")


def caller() -> Identity:
    """The identity of the call that is being served."""
    return _caller.get()


class Guard(grpc.aio.ServerInterceptor):
    """Wraps each handler of one server; `plaintext` takes every caller for the loopback identity.

    `on_ledger_fault` is called once a charge could not be made durable: the server stops serving.
    `observer` is told of each call's end. `revocations` are asked at each call.
    """

    def __init__(
        self,
        *,
        plaintext: bool,
        on_ledger_fault: Callable[[], None],
        observer: Observer | None = None,
        revocations: Revocations | None = None,
    ):
        self._plaintext = plaintext
        self._on_ledger_fault = on_ledger_fault
        self._observer = observer or Observer()
        self._revocations = revocations
        self._guarded: dict[str, grpc.RpcMethodHandler] = {}

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler:
        method = handler_call_details.method
        guarded = self._guarded.get(method)
        if guarded is None:
            handler = await continuation(handler_call_details)
            if handler is None:
                return None
            # A method has one handler, whoever calls it, for as long as its server runs.
            guarded = self._guarded[method] = self._guard(method, handler)
        return guarded

    def _guard(self, method: str, handler: grpc.RpcMethodHandler) -> grpc.RpcMethodHandler:
        if handler.unary_unary is not None:
            return grpc.unary_unary_rpc_method_handler(
                self._unary(method, handler.unary_unary, handler.request_deserializer),
                response_serializer=handler.response_serializer,
            )
        if handler.unary_stream is not None:
            return grpc.unary_stream_rpc_method_handler(
                self._stream(method, handler.unary_stream, handler.request_deserializer, _parsed),
                response_serializer=handler.response_serializer,
            )
        return grpc.stream_stream_rpc_method_handler(
            self._stream(method, handler.stream_stream, handler.request_deserializer, _all_parsed),
            response_serializer=handler.response_serializer,
        )

    def _unary(
        self, method: str, behaviour: Callable[..., Any], parse: _Parse
    ) -> Callable[..., Any]:
        async def serve(request: bytes, context: grpc.aio.ServicerContext) -> Any:
            try:
                self._admit(method, context, needs_deadline=True)
                return await behaviour(_parsed(request, parse), context)
            except Exception as error:
                await self._refuse(method, error, context)

        return self._told(method, serve, streamed=False)

    def _stream(
        self,
        method: str,
        behaviour: Callable[..., Any],
        parse: _Parse,
        parsed: Callable[[Any, _Parse], Any],
    ) -> Callable[..., Any]:
        # A coroutine that writes, not a generator: it wraps handlers of both styles alike.
        async def serve(request: Any, context: grpc.aio.ServicerContext) -> None:
            try:
                # A watch or a reflection session has no natural end, hence no deadline.
                self._admit(method, context, needs_deadline=False)
                responses = behaviour(parsed(request, parse), context)
                if inspect.isasyncgen(responses):
                    async for response in responses:
                        await context.write(response)
                else:
                    await responses
            except Exception as error:
                await self._refuse(method, error, context)

        return self._told(method, serve, streamed=True)

    def _told(
        self, method: str, serve: Callable[..., Any], *, streamed: bool
    ) -> Callable[..., Any]:
        """`serve`, of whose end the observer is told, however it ends."""
        if not self._observer.listens:
            return serve

        async def told(request: Any, context: grpc.aio.ServicerContext) -> Any:
            began, noted, code = time.monotonic(), start_notes(), "OK"
            try:
                return await serve(request, context)
            except asyncio.CancelledError:
                # The caller went away, or its deadline passed: gRPC does not say which.
                code = "CANCELLED"
                raise
            except BaseException:
                code = _code(context)
                raise
            finally:
                identity = _caller.get(None)
                self._observer.called(
                    Call(
                        method,
                        identity.name if identity else "",
                        tuple(sorted(identity.roles)) if identity else (),
                        code,
                        noted.reason,
                        time.monotonic() - began,
                        noted.request_id,
                        noted.samples,
                        noted.charged_samples,
                        noted.charge,
                        noted.entry,
                        began,
                        tuple(noted.stages),
                        streamed,
                    )
                )

        return told

    def _admit(
        self, method: str, context: grpc.aio.ServicerContext, *, needs_deadline: bool
    ) -> None:
        if self._plaintext:
            identity, certificate = LOOPBACK, b""
        else:
            shown = context.auth_context()
            identity = _identified(tuple(shown.get("peer_uri", ())))
            certificate = shown["x509_pem_cert"][0]
        # Before it is judged: who was refused is told, too.
        _caller.set(identity)
        if self._revocations is not None:
            self._revocations.check(certificate, identity.name)
        authorise(identity, method)
        left = context.time_remaining()
        if needs_deadline and (left is None or left > LONGEST_SECONDS + _ROUNDING_SECONDS):
            raise RequestError(
                Reason.DEADLINE_REQUIRED,
                f"set a deadline of {LONGEST_SECONDS:g} seconds at most on the call",
            )

    async def _refuse(
        self, method: str, error: Exception, context: grpc.aio.ServicerContext
    ) -> None:
        # `context.abort` itself raises: an abort already under way is passed on.
        if isinstance(error, grpc.aio.AbortError | grpc.RpcError):
            raise error
        if isinstance(error, grpc.aio.InternalError):
            # A response could not be written: whoever asked has gone, and gRPC says so by nothing
            # else. A cancelled call is no fault, and is not logged as one.
            raise asyncio.CancelledError from None
        if isinstance(error, LedgerFault):
            log.error("%s: the ledger failed: no answer leaves any more", method)
            self._on_ledger_fault()
        status = status_of(error)
        if status is None:
            log.error("%s: unforeseen %s", method, type(error).__name__)
            status = INTERNAL
        notes().reason = _reason(status)
        hint = error.retry_seconds if isinstance(error, RequestError) else None
        told = with_pushback(rpc_status.to_status(status), hint, context.time_remaining())
        try:
            await context.abort_with_status(told)
        except grpc.aio.InternalError:
            raise asyncio.CancelledError from None


@functools.lru_cache(maxsize=4096)
def _identified(uris: tuple[bytes, ...]) -> Identity:
    return identify(list(uris))


def _code(context: grpc.aio.ServicerContext) -> str:
    """Name of the status that the call was ended with."""
    code = context.code()
    return _CODE_NAMES.get(code.value[0] if isinstance(code, grpc.StatusCode) else code, "UNKNOWN")


def _reason(status: status_pb2.Status) -> str:
    info = error_details_pb2.ErrorInfo()
    return info.reason if any(item.Unpack(info) for item in status.details) else "UNFORESEEN"


def _parsed(request: bytes, parse: _Parse) -> Any:
    """The message in `request`. Raises RequestError."""
    try:
        return parse(request)
    except DecodeError:
        raise RequestError(
            Reason.MALFORMED_MESSAGE, "the request is no message of this method"
        ) from None


async def _all_parsed(requests: AsyncIterator[bytes], parse: _Parse) -> AsyncIterator[Any]:
    async for request in requests:
        yield _parsed(request, parse)
