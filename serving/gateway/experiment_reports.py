"""An experiment's report for the API: as JSON, and as the page that people read."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Final, Literal

from data.errors import ExperimentError, MetricError
from serving.gateway.kept import Kept
from serving.gateway.limits import Refusal

if TYPE_CHECKING:
    from serving.experiments.report import ExperimentReport

Language = Literal["en", "ko"]
LANGUAGES: Final[tuple[Language, ...]] = ("en", "ko")


class Reports:
    """Computes reports from one store; used by one thread alone."""

    def __init__(self, store_url: str):
        """Compute nothing yet."""
        self._url = store_url
        self._kept: Kept[ExperimentReport] = Kept()

    def json(self, name: str) -> bytes:
        """The report's JSON.

        Raises:
            Refusal: 409, there is nothing to report of yet.
            ExperimentError: the store cannot be read.
        """
        return self._report(name).model_dump_json().encode()

    def page(self, name: str, language: Language) -> bytes:
        """The report's page.

        Raises:
            Refusal: 409, there is nothing to report of yet.
            ExperimentError: the store cannot be read.
        """
        from serving.experiments.report_page import page

        return page(self._report(name), language).encode()

    def _report(self, name: str) -> "ExperimentReport":
        from serving.experiments.analysis import report_of

        return self._kept.get(name, _told(lambda: report_of(self._url, name)))


def _told(compute: "Callable[[], ExperimentReport]") -> "Callable[[], ExperimentReport]":
    def told() -> "ExperimentReport":
        try:
            return compute()
        except (ExperimentError, MetricError) as error:
            # What the database said is the store's trouble; the rest is why no report can be made.
            if isinstance(error, ExperimentError) and error.__cause__ is not None:
                raise
            raise Refusal(409, "no_report", str(error)) from error

    return told
