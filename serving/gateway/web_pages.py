"""The web page of experiments: the files of serving/web, served as they lie there.

The page gets what it shows from the API, runs no script but its own files, and is shown inside no
other page.
"""

import hashlib
from importlib import resources
from typing import Final

from fastapi import FastAPI, Request, Response

from serving.gateway.limits import Refusal

PAGE: Final = "/experiments"
ASSETS: Final = "/experiments/assets"
_INDEX: Final = "index.html"
_TYPES: Final = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
_HEADERS: Final = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "connect-src 'self'; img-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-cache",
}


def add_web_pages(app: FastAPI) -> None:
    """Add the page and its files to an app; they are read once, here."""
    folder = resources.files("serving") / "web"
    files = {
        item.name: item.read_bytes()
        for item in folder.iterdir()
        if item.is_file() and _ending(item.name) in _TYPES
    }

    @app.get(PAGE, include_in_schema=False)
    async def page(request: Request) -> Response:
        return _file(request, _INDEX, files[_INDEX])

    @app.get(ASSETS + "/{name}", include_in_schema=False)
    async def asset(name: str, request: Request) -> Response:
        if name not in files:
            raise Refusal(404, "not_found", f"the page has no file {name[:80]!r}; see {PAGE}")
        return _file(request, name, files[name])


def _file(request: Request, name: str, content: bytes) -> Response:
    tag = f'"{hashlib.sha256(content).hexdigest()[:32]}"'
    headers = _HEADERS | {"ETag": tag}
    if request.headers.get("if-none-match") == tag:
        return Response(status_code=304, headers=headers)
    return Response(content, headers=headers | {"Content-Type": _TYPES[_ending(name)]})


def _ending(name: str) -> str:
    return name[name.rfind(".") :]
