"""The routes of experiments, and their documentation; what they do is in experiments.py.

Whoever reaches the gateway may read, as with ``/metrics``; changes need the administrator's token
(admin.py). No header lets another site's page read or write here.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Final

from fastapi import Depends, FastAPI, Query, Request, Response
from fastapi.security import HTTPBearer
from pydantic import BaseModel, ValidationError

from data.errors import SettingsError
from serving.experiments.lifecycle import OPENING
from serving.experiments.specification import ExperimentSpecification, specification_of
from serving.gateway.admin import refuse_unless_admin
from serving.gateway.alias_ledger import AliasLedger
from serving.gateway.experiment_reports import LANGUAGES, Language, Reports
from serving.gateway.experiment_schemas import (
    EVENT_EXAMPLES,
    SPECIFICATION_EXAMPLES,
    ActedOut,
    AgreedOut,
    EventIn,
    ExperimentsOut,
    LedgerOut,
    OneExperimentOut,
    RoutesOut,
)
from serving.gateway.experiments import Experiments
from serving.gateway.limits import JSON, Refusal, read_json
from serving.gateway.openapi import error_answers, json_body
from serving.gateway.phases import Phases
from serving.gateway.schemas import first_problem
from serving.gateway.settings import ServingSettings

EXPERIMENTS: Final = "/v1/experiments"
ROUTES: Final = "/v1/routes"
LEDGER: Final = "/v1/ledger"
_HTML: Final = "text/html"
# For the document alone: admin.py refuses, in the shape of all refusals.
_TOKEN: Final = Depends(
    HTTPBearer(auto_error=False, description="The value of MATJIP_ADMIN_TOKEN.")
)
_REPORT_POLICY: Final = (
    "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'"
)


def add_experiments(
    app: FastAPI, experiments: Experiments, settings: ServingSettings, *, watched: Sequence[Path]
) -> None:
    """Add the routes to an app.

    Args:
        app: to which.
        experiments: what they read and change.
        settings: limits, and who may change anything.
        watched: the deployment files through which phases are put to work.
    """
    ledger = AliasLedger()
    _add_reads(app, experiments)
    _add_agreeing(app, experiments, settings)
    phases = Phases(experiments, ledger, live=settings.live, watched=watched)
    _add_events(app, experiments, phases, settings)
    _add_report(app, experiments)
    _add_ledger(app, experiments, ledger)


def _add_reads(app: FastAPI, experiments: Experiments) -> None:
    @app.get(
        EXPERIMENTS,
        summary="All experiments",
        response_model=ExperimentsOut,
        responses=error_answers(429, 503),
    )
    async def listed() -> Response:
        """By name, each with its state, its open phase, and what its arms have answered in it."""
        found = await experiments.apart("reads", experiments.all)
        return _answer(ExperimentsOut(experiments=found))

    @app.get(
        EXPERIMENTS + "/{name}",
        summary="One experiment",
        response_model=OneExperimentOut,
        responses=error_answers(404, 429, 503),
    )
    async def one(name: str) -> Response:
        """What was agreed, what was done since, and what may be done now."""
        return _answer(await experiments.apart("reads", experiments.one, name))

    @app.get(
        ROUTES,
        summary="Who answers everybody",
        response_model=RoutesOut,
        responses=error_answers(404, 429, 503),
    )
    async def routes(
        experiment: Annotated[str | None, Query(description="Of this experiment alone.")] = None,
    ) -> Response:
        """The log of routes, the newest first; a deployment's newest one holds."""
        found = await experiments.apart("reads", experiments.routes, experiment)
        return _answer(RoutesOut(routes=found))


async def _admins_json(request: Request, settings: ServingSettings) -> object:
    refuse_unless_admin(request, settings.admin_token)
    return await read_json(
        request, max_bytes=settings.max_body_bytes, timeout_s=settings.body_timeout_s
    )


def _add_agreeing(app: FastAPI, experiments: Experiments, settings: ServingSettings) -> None:
    @app.post(
        EXPERIMENTS,
        summary="Agree an experiment",
        dependencies=[_TOKEN],
        response_model=AgreedOut,
        responses=error_answers(400, 401, 403, 409, 413, 415, 422, 429, 503),
        openapi_extra=json_body(
            ExperimentSpecification.model_json_schema(), SPECIFICATION_EXAMPLES
        ),
    )
    async def agree(request: Request) -> Response:
        """Keeps a specification; until the experiment begins, another may follow it.

        Needs `Authorization: Bearer`. What was kept already is not kept twice.
        """
        try:
            raw = await _admins_json(request, settings)
            said = specification_of(raw, where="the specification")
        except SettingsError as error:
            raise Refusal(422, "invalid_specification", str(error)) from error
        return _answer(await experiments.apart("writes", experiments.put, said))


def _add_events(
    app: FastAPI, experiments: Experiments, phases: Phases, settings: ServingSettings
) -> None:
    @app.post(
        EXPERIMENTS + "/{name}/events",
        summary="Start, advance, stop, resume, promote or roll back an experiment",
        dependencies=[_TOKEN],
        response_model=ActedOut,
        responses=error_answers(400, 401, 403, 404, 409, 413, 415, 422, 429, 501, 503),
        openapi_extra=json_body(EventIn.model_json_schema(), EVENT_EXAMPLES),
    )
    async def act(name: str, request: Request) -> Response:
        """Writes an event down, and with it who answers everybody; gateways follow in a second.

        Needs `Authorization: Bearer`. It is refused where it is not allowed now, and where somebody
        has acted since the `after` events that the caller has seen. What opens a phase answers
        once its models are fetched and checked, which may take minutes; a promotion, once the
        registry's alias has followed (`alias` says so).
        """
        raw = await _admins_json(request, settings)
        try:
            said = EventIn.model_validate(raw)
            event = said.event()
        except ValidationError as error:
            field, message = first_problem(error)
            raise Refusal(422, "invalid_event", message, field=field) from error
        if event.action in OPENING:
            return _answer(await experiments.apart("slow", phases.open, name, event, said.after))
        acted = await experiments.apart("writes", experiments.act, name, event, said.after)
        if event.action == "promote":
            champion, alias = await experiments.apart("slow", phases.crown, name)
            acted = acted.model_copy(update={"alias": alias, "is_champion": champion})
        return _answer(acted)


def _add_report(app: FastAPI, experiments: Experiments) -> None:
    reports = Reports(experiments.store_url)
    answer: dict[str, Any] = {
        "description": "The report; a page where `Accept` asks for text/html.",
        "content": {JSON: {}, _HTML: {}},
    }

    @app.get(
        EXPERIMENTS + "/{name}/report",
        summary="What an experiment has shown so far",
        response_class=Response,
        responses=error_answers(404, 409, 422, 429, 503) | {200: answer},
    )
    async def report(
        name: str,
        request: Request,
        lang: Annotated[str, Query(description="Of the page: en or ko.")] = "en",
    ) -> Response:
        """The verdict with all that it rests on, of the phase that is open, or was last.

        It is kept for ten times as long as it took, so it may be a little old.
        """
        language = _language(lang)
        await experiments.apart("reads", experiments.entry, name)
        if _HTML in request.headers.get("accept", ""):
            made = await experiments.apart("slow", reports.page, name, language)
            headers = {"Content-Security-Policy": _REPORT_POLICY, "Vary": "Accept"}
            return Response(made, headers=headers, media_type=_HTML)
        made = await experiments.apart("slow", reports.json, name)
        return Response(made, headers={"Vary": "Accept"}, media_type=JSON)


def _add_ledger(app: FastAPI, experiments: Experiments, ledger: AliasLedger) -> None:
    @app.get(
        LEDGER,
        summary="A model's aliases, and how they moved",
        response_model=LedgerOut,
        responses=error_answers(404, 422, 429, 503),
    )
    async def moves(
        model: Annotated[str | None, Query(description="A registered model's name.")] = None,
    ) -> Response:
        """Reads the registry; the first time takes some seconds."""
        if not model:
            raise Refusal(
                422, "invalid_request", "model: name a model, as ?model=NAME", field="model"
            )
        return _answer(await experiments.apart("slow", ledger.read, model))


def _answer(said: BaseModel) -> Response:
    return Response(said.model_dump_json(), media_type=JSON, headers={"Cache-Control": "no-store"})


def _language(said: str) -> Language:
    for language in LANGUAGES:
        if said == language:
            return language
    raise Refusal(
        422, "invalid_request", f"lang={said[:20]!r} is not one of 'en', 'ko'", field="lang"
    )
