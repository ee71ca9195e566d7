"""Is it alive, is it ready: what load balancers and Kubernetes ask."""

from __future__ import annotations

from fastapi import APIRouter, Response

from fastsock.api.dependencies import Served
from fastsock.api.errors import problem
from fastsock.core.errors import TABLE, FastSockError
from fastsock.schemas import http

router = APIRouter(tags=["operation"])


@router.get("/healthz")
async def alive() -> http.Health:
    """The process answers; restart it when it does not."""
    return http.Health()


@router.get(
    "/readyz",
    response_model=http.Health,
    responses={TABLE["storage_unavailable"].http_status: {"model": http.Problem, "description": "the reason"}},
)
async def ready(services: Served) -> Response:
    """The database answers too; send no requests here while it does not."""
    try:
        await services.db.ping()
    except FastSockError as error:
        return problem(error)  # with its reason, which other answers leave out
    return Response(http.Health().model_dump_json(), media_type="application/json")
