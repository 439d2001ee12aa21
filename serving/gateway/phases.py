"""Phases that the API opens, and winners whose alias follows; both need the registry.

A phase is put to work through the files that this gateway watches, so it opens phases only where
one of them is the live folder's (``MATJIP_LIVE``, as ``make serve`` does it).
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import sqlalchemy as sa

from data.errors import ArtifactError, ExperimentError, RegistryError, SettingsError
from serving.experiments.lifecycle import Event
from serving.gateway.alias_ledger import AliasLedger, knows_nothing
from serving.gateway.experiment_schemas import ActedOut, acted_out
from serving.gateway.experiments import Experiments
from serving.gateway.limits import Refusal

_LIVE_FILES: Final = ("deployment.json", "language_deployment.json")
_MODELS: Final = "models"


class Phases:
    """Opens phases of one store's experiments, and crowns their winners; used by one thread."""

    def __init__(
        self, experiments: Experiments, ledger: AliasLedger, *, live: Path, watched: Sequence[Path]
    ):
        """Touch nothing yet.

        Args:
            experiments: of the store.
            ledger: the registry that holds their models.
            live: folder that phases are put to work in.
            watched: the deployment files that this gateway watches.
        """
        self._experiments = experiments
        self._ledger = ledger
        self._live = live
        self._watched = watched

    def open(self, name: str, event: Event, after: int) -> ActedOut:
        """Start, advance or reallocate; returns once the phase's models are fetched and checked.

        Raises:
            Refusal: 404 there is no such experiment or registry, 409 that may not be done now or
                the models do not allow it, 501 this gateway watches another file, 503 the registry
                or the live folder refused.
            ExperimentError: the store refused.
        """
        self._experiments.refuse_unless_current(name, after)
        if not serves_phases(self._live, self._watched):
            raise Refusal(
                501,
                "not_live",
                f"this gateway watches {[str(file) for file in self._watched]!r}, and phases are "
                f"put to work in {str(self._live)!r}; use make experiment, or serve the live "
                "folder (make serve), which MATJIP_LIVE names",
            )
        registry = self._ledger.registry()
        from serving.registry.phases import open_phase

        with _refused():
            entry = open_phase(
                registry,
                self._experiments.catalogue,
                name,
                event.action,
                by=event.by,
                reason=event.reason,
                allocation=event.allocation,
                after=after,
                live=self._live,
                work=self._live.parent / _MODELS,
            )
        return acted_out(entry)

    def crown(self, name: str) -> tuple[bool, str]:
        """Let the registry's alias follow a promotion; whether it did, and what became of it.

        The traffic has turned by then, so whatever stands in the way is told, and no refusal.
        """
        try:
            registry = self._ledger.registry()
            from serving.registry.winners import crown

            winner = crown(registry, self._experiments.catalogue, name)
        except (Refusal, RegistryError, ExperimentError) as error:
            said = error.detail if isinstance(error, Refusal) else str(error)
            return False, (
                f"the traffic turned, the alias did not follow: {said}; then make experiment "
                "promote again, which goes on"
            )
        return winner.is_champion, winner.sentence


def serves_phases(live: Path, watched: Sequence[Path]) -> bool:
    """Whether a gateway that watches these deployment files serves the phases of a live folder."""
    files = {(live / name).resolve() for name in _LIVE_FILES}
    return any(file.resolve() in files for file in watched)


@contextmanager
def _refused() -> Iterator[None]:
    try:
        yield
    except ExperimentError as error:
        if isinstance(error.__cause__, sa.exc.SQLAlchemyError):
            raise
        raise Refusal(409, "not_allowed_now", str(error)) from error
    except SettingsError as error:
        raise Refusal(422, "invalid_event", str(error)) from error
    except RegistryError as error:
        # Without a cause, the registry answered, and a model is not as it should be.
        if error.__cause__ is None or knows_nothing(error):
            raise Refusal(409, "models_refused", str(error)) from error
        raise Refusal(503, "registry_failed", str(error), retry_after_s=5) from error
    except ArtifactError as error:
        raise Refusal(503, "live_failed", str(error)) from error
