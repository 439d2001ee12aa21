"""compare_and_promote as a recurring run of a Kubeflow server.

A name, how often and the graph's arguments come in; one recurring run of that name is there
afterwards, however often it is asked for: the new one is made first, then the older ones go, so a
kill between the two leaves both, and the next call leaves one. A run that is missed is not caught
up on, because one look at the store tells as much as two, and no run begins before the last ended.
Nothing comes from the cache: the arguments are always the same, and the store is not.
"""

import json
import re
import tempfile
from pathlib import Path
from typing import Any, Final

from kfp import Client, compiler

from data.errors import SettingsError
from pipelines.cluster import ON_CLUSTER, SubmitError, checked_host, checked_placement
from pipelines.compare_and_promote import compare_and_promote

EXPERIMENT: Final = "matjip"
NAME: Final = "compare-and-promote"
_FIELDS: Final = 6
_WITHIN: Final = {"m": 60, "h": 24}
_EQUALS: Final = 1
"""Of the server's filter operations."""
_PAGE: Final = 100


def cron_of(every: str) -> str:
    """A cron expression of six fields, seconds first.

    Args:
        every: "15m", "6h" or "1d", or such an expression itself.

    Raises:
        SettingsError: it is neither, or the time does not divide its hour or day.
    """
    if len(every.split()) == _FIELDS:
        return " ".join(every.split())
    found = re.fullmatch(r"([1-9][0-9]*)([mhd])", every.strip())
    if found is None:
        raise SettingsError(
            f"every={every!r}; give a time like '15m', '6h' or '1d', or a cron expression of "
            f"{_FIELDS} fields, seconds first, like '0 30 9 * * 1-5'"
        )
    number, unit = int(found[1]), found[2]
    if unit == "d" and number == 1:
        return "0 0 0 * * *"
    whole = _WITHIN.get(unit, 1)
    if unit == "d" or whole % number or number == whole:
        raise SettingsError(
            f"every={every!r} does not come out even; take a divisor of 60 minutes below it, of 24 "
            "hours below it, or '1d'"
        )
    return f"0 */{number} * * * *" if unit == "m" else f"0 0 */{number} * * *"


def schedule_graph(
    host: str, placement: Path, *, every: str, name: str = NAME, given: dict[str, Any]
) -> str:
    """Let the server run ``compare_and_promote`` again and again; returns the run's address.

    Args:
        host: the API's address.
        placement: images, resources and volumes.
        every: see ``cron_of``.
        name: of the recurring run; one of the same name is replaced.
        given: the graph's arguments: deployment, store_url, and whatever else.

    Raises:
        SettingsError: no host, no such time, or an argument is missing or unknown.
        SubmitError: the server cannot be reached, or refused.
    """
    checked_host(host, "schedule")
    cron = cron_of(every)
    graph = compare_and_promote(checked_placement(placement))
    inputs = graph.pipeline_spec.root.input_definitions.parameters
    known = {key: value for key, value in ON_CLUSTER.items() if key in inputs}
    arguments = known | {"watermark": ""} | given
    missing = [n for n, p in inputs.items() if not p.is_optional and n not in arguments]
    unknown = sorted(set(arguments) - set(inputs))
    if missing or unknown:
        raise SettingsError(
            f"the graph also needs {missing!r} and does not know {unknown!r}: pass --set "
            "deployment=URI --set store_url=postgresql://… of what the gateway serves and writes"
        )
    try:
        client = Client(host=host)
        experiment_id = client.create_experiment(EXPERIMENT).experiment_id
        older = _named(client, experiment_id, name)
        with tempfile.TemporaryDirectory() as folder:
            package = Path(folder) / f"{NAME}.yaml"
            compiler.Compiler().compile(graph, str(package))
            made = client.create_recurring_run(
                experiment_id,
                name,
                description=f"Every {every}; `make schedule` replaces it.",
                cron_expression=cron,
                max_concurrency=1,
                no_catchup=True,
                params=arguments,
                pipeline_package_path=str(package),
                enable_caching=False,
            )
        for each in older:
            client.delete_recurring_run(each)
    except Exception as error:  # the client raises urllib3's, its own and plain ValueErrors
        raise SubmitError(
            f"{host!r} did not take the recurring run: {error}; check the address, then schedule "
            "again (one of the same name is replaced)"
        ) from error
    return f"{host}/#/recurringrun/details/{made.recurring_run_id}"


def _named(client: Client, experiment_id: str, name: str) -> list[str]:
    """The ids of the recurring runs of that name."""
    wanted = {"operation": _EQUALS, "key": "display_name", "stringValue": name}
    found: list[str] = []
    page_token = ""
    while True:
        listed = client.list_recurring_runs(
            page_token=page_token,
            page_size=_PAGE,
            experiment_id=experiment_id,
            filter=json.dumps({"predicates": [wanted]}),
        )
        # The name once more, for a server that knows no filter.
        found += [
            each.recurring_run_id
            for each in listed.recurring_runs or []
            if each.display_name == name
        ]
        page_token = listed.next_page_token or ""
        if not page_token:
            return found
