"""Every refusal as one body: ``{detail, code, retryable, retry_after_ms?, id?}``.

`FastSockError` brings its code and its status from the table in `fastsock.core.errors`; what the framework refuses by
itself (bodies that don't fit, paths that don't exist) is put into the same words here. Values that were refused are
named, unless they are long or secret, and never in a way that the answer itself could not be encoded.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

import msgspec
import structlog
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from fastsock.core.errors import TABLE, FastSockError, error_of
from fastsock.schemas.http import Problem

log = structlog.get_logger(__name__)

MAX_SHOWN_CHARS = 40
"""A refused text that is longer is named by its length."""
MAX_SHOWN_ERRORS = 5
"""What is wrong with one request; the rest is counted."""
SECRET_FIELDS = frozenset({"password", "client_secret"})

FRAMEWORK_CODES = {404: "not_found", 405: "method_not_allowed", 413: "frame_too_large"}
"""Codes of refusals in which no `FastSockError` is involved; everything else is ``invalid_data``."""


def problem(error: FastSockError, *, error_id: str | None = None) -> Response:
    """The response for an error; ``error_id`` is under which an internal one stands in the log."""
    body: dict[str, object] = {"detail": _encodable(str(error)), "code": error.code, "retryable": error.retryable}
    headers: dict[str, str] = {}
    if error.retry_after_ms is not None:
        body["retry_after_ms"] = error.retry_after_ms
        headers["Retry-After"] = str(math.ceil(error.retry_after_ms / 1000))  # RFC 9110, 10.2.3: whole seconds
    if error.http_status == HTTPStatus.UNAUTHORIZED:
        headers["WWW-Authenticate"] = "Bearer"
    if error_id is not None:
        body["id"] = error_id
    return _json(error.http_status, body, headers)


def install(app: FastAPI) -> None:
    """Have the application answer every refusal in this form."""

    async def refused(request: Request, error: Exception) -> Response:
        assert isinstance(error, FastSockError)
        if error.code == "storage_unavailable":  # its text says where the database is: that is for the log
            log.warning("storage unavailable", path=request.url.path, cause=str(error))
            error = error_of(error.code, "the database is not available", error.retry_after_ms)
        return problem(error)

    async def invalid(_request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        errors = error.errors()
        code = "bad_json" if any(one["type"] == "json_invalid" for one in errors) else "invalid_data"
        body = {"detail": _encodable(_readable_all(errors)), "code": code, "retryable": False}
        return _json(TABLE[code].http_status, body)

    async def framework(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        detail = f"{error.detail[:1].lower()}{error.detail[1:]}"
        if error.status_code == HTTPStatus.NOT_FOUND:
            detail = f"there is nothing at {_shown(request.url.path)}"
        elif error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
            detail = f"{_shown(request.url.path)} does not take {_shown(request.method)}"
        code = FRAMEWORK_CODES.get(error.status_code, "invalid_data")
        return _json(
            error.status_code, {"detail": _encodable(detail), "code": code, "retryable": False}, error.headers or {}
        )

    app.add_exception_handler(FastSockError, refused)
    app.add_exception_handler(RequestValidationError, invalid)
    app.add_exception_handler(HTTPException, framework)


def documented(*codes: str) -> dict[int | str, dict[str, Any]]:
    """The ``responses=`` of a route that may be refused with these codes, for ``/docs``."""
    by_status: dict[int | str, list[str]] = {}
    for code in (*codes, "invalid_data", "storage_unavailable", "internal"):
        by_status.setdefault(TABLE[code].http_status, []).append(code)
    return {
        status: {"model": Problem, "description": f"`code`: {', '.join(found)}"} for status, found in by_status.items()
    }


def _json(status: int, body: Mapping[str, object], headers: Mapping[str, str] | None = None) -> Response:
    return Response(msgspec.json.encode(body), status, headers, "application/json")


def _encodable(text: str) -> str:
    """The text, with lone surrogates as their escapes: UTF-8 has no bytes for them."""
    return text.encode("utf-8", "backslashreplace").decode()


def _shown(text: str) -> str:
    return text if len(text) <= MAX_SHOWN_CHARS else f"{text[:MAX_SHOWN_CHARS]}..."


def _readable_all(errors: Sequence[Mapping[str, Any]]) -> str:
    texts = [_readable(error) for error in errors[:MAX_SHOWN_ERRORS]]
    more = len(errors) - len(texts)
    return "; ".join([*texts, f"and {more:,} more"] if more else texts)


def _readable(error: Mapping[str, Any]) -> str:
    """``name: string should have at most 200 characters, not 312 characters``."""
    if error["type"] == "json_invalid":
        return f"the body is not JSON: {error['ctx']['error']} at character {error['loc'][-1]}"
    where = [str(part) for part in error["loc"]]
    name = ".".join(where[1:]) or where[0]
    message = error["msg"].removeprefix("Value error, ")
    text = f"{name}: {message[:1].lower()}{message[1:]}"
    given = None if SECRET_FIELDS.intersection(where) else _given(error.get("input"))
    return text if given is None or error["type"] == "missing" else f"{text}, not {given}"


def _given(value: object) -> str | None:
    """A refused value in short, or None where it is better left out."""
    if isinstance(value, str):
        return ascii(value) if len(value) <= MAX_SHOWN_CHARS else f"{len(value):,} characters"
    if isinstance(value, bool) or value is None:
        return msgspec.json.encode(value).decode()
    if isinstance(value, int | float):
        return "a longer number" if isinstance(value, int) and abs(value) > 10**MAX_SHOWN_CHARS else str(value)
    return None
