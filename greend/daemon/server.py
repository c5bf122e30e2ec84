"""HTTP over a Unix socket: who asks is known by the kernel (SO_PEERCRED), not by what they say."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import threading
from collections.abc import AsyncIterator, Sequence

import msgspec
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, StreamingResponse
from starlette.routing import Route
from uvicorn.protocols.http.h11_impl import H11Protocol

from greend import wire
from greend.config import Governor
from greend.daemon.hub import Hub
from greend.daemon.jobs import JobBook
from greend.daemon.peers import body, event, uid_of
from greend.daemon.service import Service
from greend.errors import GreendError, NotFound, PermissionDenied

END_WAIT_S = 10.0
"""How long the end of a job may wait for its last joules to be stored."""


class PeerProtocol(H11Protocol):
    """Puts the peer's user id and pid where ASGI keeps the client's host and port."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Ask the kernel who connected."""
        super().connection_made(transport)
        raw = transport.get_extra_info("socket").getsockopt(
            socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i")
        )
        pid, uid, _gid = struct.unpack("3i", raw)
        self.client = (str(uid), pid)


def application(
    service: Service, jobs: JobBook, hub: Hub, settings: Governor, more: Sequence[Route] = ()
) -> Starlette:
    """Return the routes over the daemon's parts."""

    async def status(_: Request) -> JSONResponse:
        return JSONResponse(msgspec.to_builtins(service.status()))

    async def flush(_: Request) -> JSONResponse:
        await asyncio.to_thread(service.flush)
        return JSONResponse({})

    async def register(request: Request) -> JSONResponse:
        message = await body(request, wire.JobRequest)
        job = service.register(message, uid_of(request))
        return JSONResponse(msgspec.to_builtins(wire.JobReply(job.id)))

    async def attach(request: Request) -> JSONResponse:
        message = await body(request, wire.AttachRequest)
        service.attach(request.path_params["job"], message, uid_of(request))
        return JSONResponse({})

    async def progress(request: Request) -> JSONResponse:
        message = await body(request, wire.Progress)
        jobs.progress(request.path_params["job"], message, uid_of(request))
        return JSONResponse({})

    async def end(request: Request) -> JSONResponse:
        message = await body(request, wire.EndRequest)
        ended = jobs.end(request.path_params["job"], message, uid_of(request))
        await asyncio.to_thread(ended.wait, END_WAIT_S)
        return JSONResponse({"stored": ended.is_set()})

    async def directives(request: Request) -> StreamingResponse:
        job_id = request.path_params["job"]
        jobs.own(job_id, uid_of(request))
        stream = _directives(jobs, hub, job_id, settings)
        return StreamingResponse(stream, media_type="text/event-stream")

    async def problem(_: Request, error: Exception) -> JSONResponse:
        code = 403 if isinstance(error, PermissionDenied) else 404 if isinstance(error, NotFound) else 400
        return JSONResponse({"error": str(error)}, status_code=code)

    prefix = wire.PREFIX
    return Starlette(
        routes=[
            Route(f"{prefix}/status", status, methods=["GET"]),
            Route(f"{prefix}/flush", flush, methods=["POST"]),
            Route(f"{prefix}/jobs", register, methods=["POST"]),
            Route(f"{prefix}/jobs/{{job}}/attach", attach, methods=["POST"]),
            Route(f"{prefix}/jobs/{{job}}/progress", progress, methods=["POST"]),
            Route(f"{prefix}/jobs/{{job}}/end", end, methods=["POST"]),
            Route(f"{prefix}/jobs/{{job}}/directives", directives, methods=["GET"]),
            *more,
        ],
        exception_handlers={GreendError: problem},
    )


async def _directives(jobs: JobBook, hub: Hub, job_id: str, settings: Governor) -> AsyncIterator[str]:
    """Yield the directive in force, each new one, and a ping when there is nothing to say."""
    with hub.listen(job_id) as queue:
        with contextlib.suppress(NotFound):
            current = jobs.get(job_id).directive(settings)
            yield event("directive", wire.encode(current).decode()) if current else event("ping", "{}")
        while True:
            try:
                async with asyncio.timeout(settings.lease_ttl_s / 3):
                    data = await queue.get()
            except TimeoutError:
                yield event("ping", "{}")
            else:
                if not data:
                    return
                yield event("directive", data)


class ServerThread:
    """uvicorn on its own thread and event loop, over a socket that is bound already."""

    def __init__(self, app: Starlette, sock: socket.socket) -> None:
        settings = uvicorn.Config(
            app, http=PeerProtocol, log_config=None, access_log=False, lifespan="off", ws="none",
            timeout_graceful_shutdown=1, loop="asyncio",
        )  # fmt: skip
        self._server = uvicorn.Server(settings)
        self._sock = sock
        self._thread = threading.Thread(target=self._run, name="greend-server", daemon=True)

    def start(self) -> None:
        """Start answering."""
        self._thread.start()

    def stop(self) -> None:
        """Stop answering; returns when the thread has ended, or after two seconds."""
        self._server.should_exit = True
        self._thread.join(timeout=2.0)
        self._sock.close()

    def _run(self) -> None:
        # Signals belong to the main thread, which tells us to stop.
        asyncio.run(self._server.serve(sockets=[self._sock]))
