"""HTTP over a Unix socket: who asks is known by the kernel (SO_PEERCRED), not by what they say."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import stat
import struct
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TypeVar

import msgspec
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, StreamingResponse
from starlette.routing import Route
from uvicorn.protocols.http.h11_impl import H11Protocol

from greend import wire
from greend.daemon.hub import Hub
from greend.daemon.jobs import JobBook
from greend.daemon.service import Service
from greend.errors import GreendError, NotFound, PermissionDenied, SocketInUse

Message = TypeVar("Message")

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


def application(service: Service, jobs: JobBook, hub: Hub, lease_ttl_s: float) -> Starlette:
    """Return the routes over the daemon's parts."""

    async def status(_: Request) -> JSONResponse:
        return JSONResponse(msgspec.to_builtins(service.status()))

    async def flush(_: Request) -> JSONResponse:
        await asyncio.to_thread(service.flush)
        return JSONResponse({})

    async def register(request: Request) -> JSONResponse:
        message = await _body(request, wire.JobRequest)
        job = service.register(message, _uid(request))
        return JSONResponse(msgspec.to_builtins(wire.JobReply(job.id)))

    async def attach(request: Request) -> JSONResponse:
        message = await _body(request, wire.AttachRequest)
        service.attach(request.path_params["job"], message, _uid(request))
        return JSONResponse({})

    async def progress(request: Request) -> JSONResponse:
        message = await _body(request, wire.Progress)
        jobs.progress(request.path_params["job"], message, _uid(request))
        return JSONResponse({})

    async def end(request: Request) -> JSONResponse:
        message = await _body(request, wire.EndRequest)
        ended = jobs.end(request.path_params["job"], message, _uid(request))
        await asyncio.to_thread(ended.wait, END_WAIT_S)
        return JSONResponse({"stored": ended.is_set()})

    async def directives(request: Request) -> StreamingResponse:
        job_id = request.path_params["job"]
        jobs.own(job_id, _uid(request))
        stream = _directives(jobs, hub, job_id, lease_ttl_s)
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
        ],
        exception_handlers={GreendError: problem},
    )


async def _directives(jobs: JobBook, hub: Hub, job_id: str, lease_ttl_s: float) -> AsyncIterator[str]:
    """Yield the directive in force, each new one, and a ping when there is nothing to say."""
    with hub.listen(job_id) as queue:
        with contextlib.suppress(NotFound):
            current = jobs.get(job_id).directive(lease_ttl_s)
            yield _event("directive", wire.encode(current).decode()) if current else _event("ping", "{}")
        while True:
            try:
                async with asyncio.timeout(lease_ttl_s / 3):
                    data = await queue.get()
            except TimeoutError:
                yield _event("ping", "{}")
            else:
                if not data:
                    return
                yield _event("directive", data)


def _event(name: str, data: str) -> str:
    return f"event: {name}\ndata: {data}\n\n"


async def _body(request: Request, kind: type[Message]) -> Message:
    try:
        return msgspec.json.decode(await request.body(), type=kind)
    except msgspec.DecodeError as error:
        raise GreendError(f"{request.url.path}: {error}") from error


def _uid(request: Request) -> int:
    return int(request.scope["client"][0])


def bind(path: Path, mode: int) -> socket.socket:
    """Return a listening socket at `path`, with its mode set before anybody can connect.

    A socket that nobody answers on is left over from a killed daemon and is replaced; one that is
    answered, or anything that is not a socket, raises SocketInUse. Raises PermissionDenied.
    """
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        _clear(path)
        # uvicorn would open its own socket to everybody (0666): hence ours, closed before it exists.
        before = os.umask(0o777 & ~mode)
        try:
            sock.bind(str(path))
        finally:
            os.umask(before)
        sock.listen(128)
    except PermissionError as error:
        sock.close()
        raise PermissionDenied(
            f"listen on {path}: permission denied; choose another with --socket"
        ) from error
    except OSError as error:
        sock.close()
        raise SocketInUse(f"listen on {path}: {error.strerror or error}") from error
    except GreendError:
        sock.close()
        raise
    return sock


def _clear(path: Path) -> None:
    try:
        kind = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(kind):
        raise SocketInUse(f"listen on {path}: something that is not a socket lies there; move it away")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(2.0)
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink()
            return
        raw = probe.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    pid = struct.unpack("3i", raw)[0]
    raise SocketInUse(
        f"listen on {path}: another greend daemon (pid {pid}) listens there; "
        "stop it, or choose another socket with --socket"
    )


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
