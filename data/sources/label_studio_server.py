"""Labels from a live Label Studio server, page by page, through its SDK.

The token is read from an argument or a variable, and stands in no message and no artifact.
"""

import os
import re
from collections.abc import Iterator
from typing import Any, Final

import httpx
from label_studio_sdk import LabelStudio
from label_studio_sdk.core.api_error import ApiError
from tenacity import Retrying, retry_if_exception, stop_after_attempt, wait_exponential_jitter

from data.errors import SourceError
from data.sources.label_studio import read_tasks
from data.sources.rows import Rows

TOKEN_VARIABLE: Final = "MATJIP_LABEL_STUDIO_TOKEN"  # noqa: S105  # a variable's name
PAGE_SIZE: Final = 100
_PROJECT_URL: Final = re.compile(r"^(?P<server>https?://.+?)/projects/(?P<project>\d+)(?:/.*)?$")
_NOT_FOUND: Final = 404
_BUSY: Final = frozenset({408, 409, 429, 500, 502, 503, 504})


def split_project_url(url: str) -> tuple[str, int]:
    """Server and project id of a project's address, as a browser shows it.

    Raises:
        SourceError: it is not such an address.
    """
    match = _PROJECT_URL.match(url)
    if match is None:
        raise SourceError(
            f"{url!r} is not a project's address; give it as http://HOST:PORT/projects/NUMBER"
        )
    return match["server"], int(match["project"])


def read_server(url: str, *, token: str | None = None, attempts: int = 4) -> Rows:
    """Rows of a project on a live Label Studio server, page by page.

    Args:
        url: the project's address, ``http://HOST:PORT/projects/NUMBER``.
        token: an access token; without it, the variable MATJIP_LABEL_STUDIO_TOKEN is read.
        attempts: how often a page is asked for before giving up.

    Raises:
        SourceError: no token, a refused one, an unknown project, or a server that does not answer.
    """
    server, project = split_project_url(url)
    token = token or os.environ.get(TOKEN_VARIABLE)
    if not token:
        raise SourceError(f"no token for Label Studio; set {TOKEN_VARIABLE} to an access token")
    tasks = _fetch_tasks(server, project, token, attempts)
    yield from read_tasks(tasks, where=f"Label Studio project {project}")


def _fetch_tasks(server: str, project: int, token: str, attempts: int) -> list[dict[str, Any]]:
    retrying = Retrying(
        retry=retry_if_exception(_is_passing),
        stop=stop_after_attempt(attempts),
        wait=wait_exponential_jitter(multiplier=0.2, max=5.0),
        reraise=True,
    )
    try:
        client: Any = LabelStudio(  # type: ignore[no-untyped-call]  # the SDK's own wrapper
            base_url=server, api_key=token, timeout=60.0, max_retries=0
        )
        retrying(client.projects.get, id=project)
        tasks = list(_pages(client, project, retrying))
    except ApiError as error:
        raise SourceError(_explain(error, server, project)) from None
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise SourceError(
            f"Label Studio at {server!r} does not answer after {attempts} attempts "
            f"({type(error).__name__}: {error}); start the server, or correct the address"
        ) from error
    if not tasks:
        raise SourceError(f"project {project} at {server!r} holds no tasks; import and label some")
    return tasks


def _is_passing(error: BaseException) -> bool:
    if isinstance(error, ApiError):
        return error.status_code in _BUSY
    return isinstance(error, httpx.TransportError)


def _pages(client: Any, project: int, retrying: Retrying) -> Iterator[dict[str, Any]]:
    page, seen = 1, 0
    while True:
        try:
            listed = retrying(client.tasks.list, project=project, page=page, page_size=PAGE_SIZE)
        except ApiError as error:
            if error.status_code == _NOT_FOUND and page > 1:
                return  # the server answers 404 past the last page
            raise
        items = listed.items or []
        for task in items:
            yield task.model_dump(mode="json")
        seen += len(items)
        if not items or seen >= listed.response.total:
            return
        page += 1


def _explain(error: ApiError, server: str, project: int) -> str:
    mends = {
        401: f"the token was refused; set {TOKEN_VARIABLE} to a valid access token",
        403: f"the token may not read project {project}; ask for access, or use another account",
        404: f"there is no project {project}; copy the project's address from the browser",
    }
    mend = mends.get(error.status_code or 0, "the server failed; look at its log and try again")
    return f"Label Studio at {server!r} answered {error.status_code}: {mend}"
