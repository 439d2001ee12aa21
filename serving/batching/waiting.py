"""Windows that wait, in two orders at once: whose turn it is, and how long they are.

Turns are start-time fair queueing (Goyal, Vin and Cheng, 1996) over tokens: a request's next
window starts where its last one ended, but never before the one that is served now. So a request
of a thousand texts takes its share beside a single text, and does not stand before it.

Only the windows whose turns come first are ordered by length: were all of them, one of a rare
length would see later ones pass it for as long as anything comes.
"""

import heapq
from bisect import bisect_left, insort
from collections.abc import Iterable
from typing import Generic

from serving.batching.requests import Answer, Request, Row


class WaitingRows(Generic[Answer]):
    """A queue that is taken from by turn and by length; used from one thread."""

    def __init__(self) -> None:
        """Start empty."""
        self._backlog: list[tuple[float, int, Row[Answer]]] = []
        self._by_turn: list[tuple[float, int, Row[Answer]]] = []
        self._by_length: list[tuple[int, int, Row[Answer]]] = []
        self._by_number: dict[int, Row[Answer]] = {}
        self._served = 0.0
        self._number = 0
        self._near_tokens = 0
        self.tokens = 0

    def __len__(self) -> int:
        return len(self._by_number)

    def add(self, rows: Iterable[Row[Answer]]) -> None:
        """Let windows of one or more requests wait."""
        for row in rows:
            request = row.text.request
            row.start = max(self._served, request.turn)
            request.turn = row.start + len(row.ids)
            self._number += 1
            row.number = self._number
            self._by_number[row.number] = row
            self.tokens += len(row.ids)
            heapq.heappush(self._backlog, (row.start, row.number, row))

    def refill(self, tokens: int) -> None:
        """Order by length what comes first, up to so many tokens."""
        while self._backlog and self._near_tokens < tokens:
            start, number, row = heapq.heappop(self._backlog)
            if number in self._by_number:
                heapq.heappush(self._by_turn, (start, number, row))
                insort(self._by_length, (len(row.ids), number, row))
                self._near_tokens += len(row.ids)

    def oldest(self) -> Row[Answer] | None:
        """The window whose turn it is, of those that ``refill`` let in."""
        while self._by_turn:
            row = self._by_turn[0][2]
            if row.number in self._by_number:
                return row
            heapq.heappop(self._by_turn)
        return None

    def around(self, row: Row[Answer], count: int) -> tuple[list[Row[Answer]], int]:
        """Windows of nearest length, shortest first, at most ``count`` to each side.

        Returns:
            them, and the place of the row among them.
        """
        place = self._place(row)
        low = max(0, place - count)
        near = self._by_length[low : place + count + 1]
        return [each for _, _, each in near], place - low

    def by_turn(self, count: int) -> list[Row[Answer]]:
        """The windows whose turns come first, of those that ``refill`` let in."""
        live = (entry for entry in self._by_turn if entry[1] in self._by_number)
        return [row for _, _, row in heapq.nsmallest(count, live)]

    def take(self, rows: Iterable[Row[Answer]]) -> None:
        """Let windows go into a batch."""
        for row in rows:
            self._remove(row)
        oldest = self.oldest()
        if oldest is not None:
            self._served = max(self._served, oldest.start)

    def drop(self, request: Request[Answer]) -> int:
        """Let go of what nobody waits for any more.

        Returns:
            windows that were dropped.
        """
        gone = [row for row in self._by_number.values() if row.text.request is request]
        for row in gone:
            self._remove(row)
        return len(gone)

    def _remove(self, row: Row[Answer]) -> None:
        place = self._place(row)
        if place < len(self._by_length) and self._by_length[place][1] == row.number:
            del self._by_length[place]
            self._near_tokens -= len(row.ids)
        del self._by_number[row.number]
        self.tokens -= len(row.ids)

    def _place(self, row: Row[Answer]) -> int:
        return bisect_left(self._by_length, (len(row.ids), row.number))
