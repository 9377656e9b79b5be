"""The record of decisions: committed before the answer is sent, those of several threads in one transaction."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass

from unalike.serve.store import DecisionRecord, Store


@dataclass(slots=True, eq=False)
class _Ticket:
    records: Sequence[DecisionRecord]
    is_done: bool = False
    error: BaseException | None = None


class DecisionLog:
    """Writes decisions to the store; while one thread commits, those of others collect and share the next transaction.

    Args:
        store: where they go.
    """

    def __init__(self, store: Store) -> None:
        self.store = store
        self._tickets: list[_Ticket] = []
        self._tickets_lock, self._commit_lock = threading.Lock(), threading.Lock()

    def add(self, records: Sequence[DecisionRecord]) -> None:
        """Write decisions; they are committed when this returns.

        Raises:
            StoreError: they could not be written.
        """
        ticket = _Ticket(records)
        with self._tickets_lock:
            self._tickets.append(ticket)
        with self._commit_lock:
            if not ticket.is_done:
                self._commit()
        if ticket.error is not None:
            raise ticket.error

    def _commit(self) -> None:
        with self._tickets_lock:
            tickets, self._tickets = self._tickets, []
        error: BaseException | None = None
        try:
            self.store.decisions.add([record for ticket in tickets for record in ticket.records])
        except BaseException as failure:  # noqa: BLE001  each thread raises it
            error = failure
        for ticket in tickets:
            ticket.is_done, ticket.error = True, error
