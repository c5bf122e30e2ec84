"""Who asks, and what: shared by all routes."""

from __future__ import annotations

from typing import TypeVar

import msgspec
from starlette.requests import Request

from greend.errors import GreendError

Message = TypeVar("Message")


def uid_of(request: Request) -> int:
    """Return whose process asks, as the kernel says."""
    return int(request.scope["client"][0])


def pid_of(request: Request) -> int:
    """Return which process asks, as the kernel says."""
    return int(request.scope["client"][1])


async def body(request: Request, kind: type[Message]) -> Message:
    """Return the message that was sent; raises GreendError for one that makes no sense."""
    try:
        return msgspec.json.decode(await request.body(), type=kind)
    except msgspec.DecodeError as error:
        raise GreendError(f"{request.url.path}: {error}") from error


def event(name: str, data: str) -> str:
    """Return a server-sent event."""
    return f"event: {name}\ndata: {data}\n\n"
