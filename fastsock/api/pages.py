"""Pages for people: the web client at ``/``, and the API's description at ``/docs``.

Nothing is loaded from elsewhere, so both work without internet. Swagger UI's files come with the package
``fastapi-offline`` (MIT; Swagger UI itself is Apache 2.0); FastAPI's own page would load them from a CDN.
"""

from __future__ import annotations

import mimetypes
from importlib import resources
from pathlib import Path

from fastapi import FastAPI, Request, Response
from fastapi.openapi.docs import get_swagger_ui_html
from starlette.responses import FileResponse
from starlette.staticfiles import StaticFiles

WEB = Path(str(resources.files("fastsock") / "web"))
SWAGGER_UI = Path(str(resources.files("fastapi_offline") / "static"))

for _type, _suffix in (
    ("text/javascript", ".js"),  # RFC 9239; Windows' registry may say text/plain, which browsers refuse as a module
    ("text/javascript", ".mjs"),
    ("text/css", ".css"),
    ("image/svg+xml", ".svg"),
    ("application/manifest+json", ".webmanifest"),
    ("font/woff2", ".woff2"),
):
    mimetypes.add_type(_type, _suffix)


def install(app: FastAPI) -> None:
    """Serve the pages."""

    async def index(_request: Request) -> Response:
        return FileResponse(WEB / "index.html")

    async def docs(request: Request) -> Response:
        root = request.scope.get("root_path", "")
        return get_swagger_ui_html(
            openapi_url=f"{root}{app.openapi_url}",
            title=f"{app.title} API",
            swagger_js_url=f"{root}/docs/files/swagger-ui-bundle.js",
            swagger_css_url=f"{root}/docs/files/swagger-ui.css",
            swagger_favicon_url=f"{root}/docs/files/favicon.png",
            swagger_ui_parameters={
                "persistAuthorization": True,
                "displayRequestDuration": True,
                "validatorUrl": None,  # else a badge is asked for from elsewhere
            },
        )

    app.add_route("/", index, methods=["GET", "HEAD"], include_in_schema=False)
    app.add_route("/docs", docs, methods=["GET", "HEAD"], include_in_schema=False)
    app.mount("/docs/files", StaticFiles(directory=SWAGGER_UI))
    app.mount("/web", StaticFiles(directory=WEB))
