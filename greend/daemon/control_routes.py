"""HTTP over `Control`: limits, holds, budgets and rules."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncIterator, Callable

import msgspec
from starlette.requests import Request
from starlette.responses import JSONResponse, StreamingResponse
from starlette.routing import Route

from greend import wire
from greend.daemon.control import Control
from greend.daemon.hub import Hub
from greend.daemon.leases import topic
from greend.daemon.peers import body, event, pid_of, uid_of
from greend.errors import ProtocolError
from greend.types import Lease


def control_routes(control: Control, hub: Hub, lease_ttl_s: float) -> list[Route]:
    """Return the routes by which people change what the daemon holds jobs to."""

    async def limits(request: Request) -> JSONResponse:
        message = await body(request, wire.LimitsRequest)
        await asyncio.to_thread(control.limit, request.path_params["job"], message, uid_of(request))
        return JSONResponse({})

    async def grant(request: Request) -> JSONResponse:
        message = await body(request, wire.HoldRequest)
        if message.for_s is None:
            raise ProtocolError("hold a job: say for how long, or follow GET /jobs/JOB/hold as a stream")
        job_id, uid, pid = request.path_params["job"], uid_of(request), pid_of(request)
        lease = await asyncio.to_thread(control.hold, job_id, message, uid, pid)
        return JSONResponse(msgspec.to_builtins(wire.HoldReply(lease.id)))

    async def follow(request: Request) -> StreamingResponse:
        asked = request.query_params
        try:
            level = int(asked.get("level", ""))
        except ValueError:
            raise ProtocolError(f"hold a job: level={asked.get('level', '')!r} is no level") from None
        message = wire.HoldRequest(level, asked.get("reason", ""), name=asked.get("name", ""))
        job_id, uid = request.path_params["job"], uid_of(request)
        control.may_hold(job_id, message, uid)
        grant = functools.partial(control.hold, job_id, message, uid, pid_of(request))
        stream = _while_connected(control, hub, grant, lease_ttl_s)
        return StreamingResponse(stream, media_type="text/event-stream")

    async def release(request: Request) -> JSONResponse:
        await asyncio.to_thread(control.release, request.path_params["hold"], uid_of(request))
        hub.publish(topic(request.path_params["hold"]), "released by command")
        return JSONResponse({})

    async def holds(_: Request) -> JSONResponse:
        return JSONResponse(msgspec.to_builtins(control.holds()))

    async def set_period(request: Request) -> JSONResponse:
        message = await body(request, wire.PeriodRequest)
        await asyncio.to_thread(control.set_period, message, uid_of(request))
        return JSONResponse({})

    async def periods(_: Request) -> JSONResponse:
        return JSONResponse(msgspec.to_builtins(await asyncio.to_thread(control.periods)))

    async def set_rule(request: Request) -> JSONResponse:
        message = await body(request, wire.RuleRequest)
        await asyncio.to_thread(control.set_rule, message, uid_of(request))
        return JSONResponse({})

    async def rules(_: Request) -> JSONResponse:
        return JSONResponse(msgspec.to_builtins(control.rules()))

    prefix = wire.PREFIX
    return [
        Route(f"{prefix}/jobs/{{job}}/limits", limits, methods=["POST"]),
        Route(f"{prefix}/jobs/{{job}}/holds", grant, methods=["POST"]),
        Route(f"{prefix}/jobs/{{job}}/hold", follow, methods=["GET"]),
        Route(f"{prefix}/holds/{{hold}}/release", release, methods=["POST"]),
        Route(f"{prefix}/holds", holds, methods=["GET"]),
        Route(f"{prefix}/budgets", set_period, methods=["POST"]),
        Route(f"{prefix}/budgets", periods, methods=["GET"]),
        Route(f"{prefix}/policies", set_rule, methods=["POST"]),
        Route(f"{prefix}/policies", rules, methods=["GET"]),
    ]


async def _while_connected(
    control: Control, hub: Hub, grant: Callable[[], Lease], lease_ttl_s: float
) -> AsyncIterator[str]:
    """Keep a hold for as long as somebody listens: whatever ends the stream ends the hold."""
    # Granted here and not before: a stream that is never begun is never ended either.
    lease = grant()
    try:
        with hub.listen(topic(lease.id)) as released:
            yield event("hold", wire.encode(wire.HoldReply(lease.id)).decode())
            while not control.leases.abandoned(lease.id):
                try:
                    async with asyncio.timeout(lease_ttl_s / 3):
                        reason = await released.get()
                except TimeoutError:
                    yield event("ping", "{}")
                else:
                    yield event("released", msgspec.json.encode({"reason": reason}).decode())
                    return
    finally:
        control.dropped(lease)
