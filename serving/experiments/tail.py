"""The rows of a table as they come in, each once: what is new since the last look.

Rows are found by when they were made, which is not when they can be read: a commit takes its time,
and the clocks of several gateways differ. So every look counts the rows of the last few
seconds, and now and then those of a minute, against those that it has read, which are known by
their event id; where there are more, it reads that time again. (Counting is the database's work:
reading a minute of 200 rows a second took a gateway 0.3 s.) A row that comes later than that is
missed: keep gateways' clocks within a minute of each other.
"""

from collections.abc import Callable, Sequence
from typing import Any, Final

import sqlalchemy as sa

_NEAR_US: Final = 5_000_000
_FAR_US: Final = 60_000_000
_FAR_EVERY: Final = 12
"""Looks: a gateway whose clock is behind is heard as many looks later."""
_PAGE_ROWS: Final = 5_000
_KNOWN: Final = 10_000
"""Event ids that are kept at least before old ones are let go of."""


class Tail:
    """The end of one table. Used from one thread at a time."""

    def __init__(self, table: sa.Table, *, now_us: Callable[[], int], page_rows: int = _PAGE_ROWS):
        """Begin before the first row.

        Args:
            table: with ``event_id`` and ``created_at_us``.
            now_us: microseconds since 1970.
            page_rows: how many are asked for at once.
        """
        self._columns = table.c
        self._now_us = now_us
        self._page_rows = page_rows
        self._known: dict[str, int] = {}
        self._kept = _KNOWN
        self._looks = 0
        self.newest_us = 0

    @property
    def went_back(self) -> bool:
        """Whether the clock was set back since, so that new rows would be taken for old."""
        return self._now_us() + _FAR_US < self.newest_us

    def begin(self, at_us: int) -> None:
        """Read nothing that was made before."""
        self.newest_us = max(self.newest_us, at_us)

    def read(
        self, connection: sa.Connection, query: sa.Select[Any], *, most_rows: int
    ) -> tuple[list[sa.Row[Any]], bool]:
        """New rows of a query, the oldest first, and whether there may be more.

        Args:
            connection: to read from.
            query: of the table, with its ``event_id`` and ``created_at_us``.
            most_rows: after so many new ones it stops.
        """
        self._looks += 1
        after = (self._start_us(connection, query), "")
        new: list[sa.Row[Any]] = []
        while True:
            page = self._page(connection, query, after)
            new += [row for row in page if row.event_id not in self._known]
            self._known.update((row.event_id, row.created_at_us) for row in page)
            if page:
                after = (page[-1].created_at_us, page[-1].event_id)
                self.newest_us = max(self.newest_us, after[0])
            behind = len(page) == self._page_rows
            if not behind or len(new) >= most_rows:
                self._forget()
                return new, behind

    def _start_us(self, connection: sa.Connection, query: sa.Select[Any]) -> int:
        """Since when there may be rows that are not known."""
        # A row from the future must not hide those of the present.
        newest_us = min(self.newest_us, self._now_us())
        start_us = newest_us - (_NEAR_US if self._looks % _FAR_EVERY else _FAR_US)
        known = sum(start_us <= at_us <= newest_us for at_us in self._known.values())
        if not known:
            return start_us
        recent = query.where(self._columns.created_at_us.between(start_us, newest_us))
        rows = connection.execute(sa.select(sa.func.count()).select_from(recent.subquery()))
        return start_us if rows.scalar_one() != known else newest_us + 1

    def _page(
        self, connection: sa.Connection, query: sa.Select[Any], after: tuple[int, str]
    ) -> Sequence[sa.Row[Any]]:
        time, key = self._columns.created_at_us, self._columns.event_id
        return connection.execute(
            query.where(time >= after[0], (time > after[0]) | (key > after[1]))
            .order_by(time, key)
            .limit(self._page_rows)
        ).all()

    def _forget(self) -> None:
        """Let go of ids that no look asks for any more, whenever they have doubled."""
        if len(self._known) <= 2 * self._kept:
            return
        oldest = min(self.newest_us, self._now_us()) - 2 * _FAR_US
        self._known = {key: at_us for key, at_us in self._known.items() if at_us >= oldest}
        self._kept = max(len(self._known), _KNOWN)
