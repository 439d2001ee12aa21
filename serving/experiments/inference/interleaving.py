"""Two search rankings on one page: dealt like a team game, judged by whose results are clicked.

Champion's and challenger's rankings of one request come in, a page and each result's team go out;
clicks come in, a score per unit in -1 … 1 and the preference go out. Every unit meets both, so the
difference shows with far fewer units than where each sees one (Radlinski, Kurup & Joachims, "How
does clickthrough data reflect retrieval quality?", CIKM 2008, whose team-draft this is).

The page is a pure function of rankings, salt and request: anybody can deal it again from the log.
Neither team has an edge by its place: in each round a coin says which picks first.
"""

import hashlib
from collections.abc import Container, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from data.errors import ExperimentError
from serving.experiments.inference.exact import Preference, sign_test
from serving.experiments.inference.sample_ratio import concentration_for, log_e_value

Floats = NDArray[np.float64]
Team = Literal["champion", "challenger"]
TEAMS: Final[tuple[Team, ...]] = get_args(Team)


@dataclass(frozen=True)
class InterleavedPage:
    """What a request is shown.

    Attributes:
        results: the results from the top.
        teams: whose pick each result is; None for those that come after one ranking has run out,
            which have no rival and earn no credit.
    """

    results: tuple[str, ...]
    teams: tuple[Team | None, ...]


@dataclass(frozen=True)
class Credit:
    """Clicked results of each team on one page."""

    champion: int
    challenger: int

    @property
    def score(self) -> float:
        """The challenger's lead in -1 … 1; 0 where neither earned anything."""
        total = self.champion + self.challenger
        return (self.challenger - self.champion) / total if total else 0.0


@dataclass(frozen=True)
class UnitScores:
    """One score per unit, in the order in which units first came.

    Attributes:
        unit: (units,) the units.
        score: (units,) mean score of the unit's requests, -1 … 1; positive for the challenger.
            Its expectation is 0 where the rankings are as good, so a confidence sequence for a
            mean may run over it.
    """

    unit: NDArray[np.str_]
    score: Floats


@dataclass(frozen=True)
class RankingPreference:
    """Which ranking units prefer.

    Attributes:
        delta: (wins + ties / 2) / units - 1/2 (Chapelle, Joachims, Radlinski & Yue, "Large-scale
            validation and analysis of interleaved search evaluation", TOIS 30, 2012): -½ … ½.
        signs: the exact test of who wins more units, for one look at a size fixed beforehand.
        anytime_p: p-value of the same that may be read after every unit.
    """

    delta: float
    signs: Preference
    anytime_p: float


def _coins(salt: str, request: str) -> Iterator[bool]:
    """A fair coin per round: True where the champion picks first.

    Coin i is bit i mod 256, the lowest first, of SHA-256(UTF-8("interleaving") + 0x00 + UTF-8(salt)
    + 0x00 + UTF-8(request) + i div 256 as four bytes, big end first). The first word keeps it apart
    from the buckets of the same salt.
    """
    text = b"interleaving\0" + salt.encode() + b"\0" + request.encode()
    for block in range(2**32):
        digest = int.from_bytes(hashlib.sha256(text + block.to_bytes(4, "big")).digest(), "big")
        for bit in range(256):
            yield bool(digest >> bit & 1)


def _best_left(ranking: list[str], shown: Container[str]) -> str | None:
    """Drop what is shown from the end of a reversed ranking, and name what remains on top."""
    while ranking and ranking[-1] in shown:
        ranking.pop()
    return ranking[-1] if ranking else None


def interleave(
    champion: Sequence[str],
    challenger: Sequence[str],
    *,
    salt: str,
    request: str,
    depth: int | None = None,
) -> InterleavedPage:
    """Deal one page from two rankings.

    Each round a coin says who picks first; each team picks its best result that is not on the page
    yet. A result that stands twice in a ranking counts where it stands first. When a round has
    ended and one ranking has nothing left, the rest of the other follows without a team.

    Args:
        champion: identifiers of its results, best first; may be empty.
        challenger: the other ranking.
        salt: the experiment's.
        request: identifies the request; the same one is always dealt the same page.
        depth: results on the page; all if None.

    Raises:
        ExperimentError: depth is below 1.
    """
    if depth is not None and depth < 1:
        raise ExperimentError(f"depth={depth!r}; a page shows at least one result, or pass None")
    left: dict[Team, list[str]] = {
        "champion": list(reversed(champion)),
        "challenger": list(reversed(challenger)),
    }
    limit = len(set(champion) | set(challenger)) if depth is None else depth
    teams: dict[str, Team | None] = {}
    coins = _coins(salt, request)
    while len(teams) < limit and all(_best_left(r, teams) is not None for r in left.values()):
        for team in TEAMS if next(coins) else reversed(TEAMS):
            best = _best_left(left[team], teams)
            if best is not None and len(teams) < limit:
                teams[best] = team
    for ranking in left.values():
        while len(teams) < limit and (best := _best_left(ranking, teams)) is not None:
            teams[best] = None
    return InterleavedPage(results=tuple(teams), teams=tuple(teams.values()))


def credit(page: InterleavedPage, clicked: Iterable[str]) -> Credit:
    """Count each team's clicked results; a result clicked twice counts once.

    Raises:
        ExperimentError: a click on what the page did not show.
    """
    team_of = dict(zip(page.results, page.teams, strict=True))
    seen = set(clicked)
    strange = seen - set(team_of)
    if strange:
        raise ExperimentError(
            f"clicks on {sorted(strange)!r}, which the page did not show; join clicks to pages by "
            "request"
        )
    teams = [team_of[result] for result in seen]
    return Credit(champion=teams.count("champion"), challenger=teams.count("challenger"))


def unit_scores(
    unit: Sequence[str] | NDArray[np.str_], score: Sequence[float] | Floats
) -> UnitScores:
    """One score per unit, so that a unit of many requests counts once.

    Args:
        unit: (requests,) who asked, in order of time.
        score: (requests,) ``Credit.score`` of each request; requests without clicks too, as 0.

    Raises:
        ExperimentError: lengths differ, or a score lies outside -1 … 1.
    """
    units, scores = np.asarray(unit, dtype=np.str_), np.asarray(score, dtype=np.float64)
    if units.shape != scores.shape or scores.ndim != 1:
        raise ExperimentError(
            f"{units.shape!r} units and {scores.shape!r} scores; pass one of each per request"
        )
    _check_scores(scores)
    names, first, place = np.unique(units, return_index=True, return_inverse=True)
    if not names.size:
        return UnitScores(unit=units, score=scores)
    means = np.bincount(place, weights=scores) / np.bincount(place)
    order = np.argsort(first)
    return UnitScores(unit=names[order], score=means[order])


def _check_scores(scores: Floats) -> None:
    if scores.size and not (np.isfinite(scores).all() and np.abs(scores).max() <= 1.0):
        raise ExperimentError("a score is missing or outside -1 … 1; take them from Credit.score")


def preference(
    score: Sequence[float] | Floats, *, alpha: float, planned_units: int
) -> RankingPreference:
    """Which ranking units prefer, by the sign of each unit's score.

    Without a preference a decided unit falls to either side like a fair coin, however much it
    clicks. So the exact binomial test judges one look, and the sample-ratio test of wins against
    losses (``log_e_value``) any number of them; for that a unit's score must be final when it is
    first looked at.

    Args:
        score: (units,) from ``unit_scores``.
        alpha: 1 - the level of the interval, and the level that ``anytime_p`` is tuned for.
        planned_units: decided units at which ``anytime_p`` is most sensitive; set beforehand.

    Raises:
        ExperimentError: an argument is out of range.
    """
    scores = np.asarray(score, dtype=np.float64)
    _check_scores(scores)
    wins, losses = int((scores > 0.0).sum()), int((scores < 0.0).sum())
    signs = sign_test(wins, losses, scores.size - wins - losses, alpha=alpha)
    log_e = log_e_value(
        [losses, wins],
        shares=(0.5, 0.5),
        concentration=concentration_for(planned_units, arms=2, alpha=alpha),
    )
    return RankingPreference(
        delta=signs.net / 2.0, signs=signs, anytime_p=float(np.exp(-max(float(log_e), 0.0)))
    )
