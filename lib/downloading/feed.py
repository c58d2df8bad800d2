"""Rows from the database into the loop, block by block, so that memory does not grow with their number."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator

from lib.db import Database
from lib.db.claims import claim, prepare, release, renew
from lib.downloading.job import Job, make_job
from lib.downloading.options import Options
from lib.downloading.sweep import own_lease
from lib.times import utc_in, utc_now

LARGEST_BLOCK = 250  # rows of one claim
LEASE_SECONDS = 900.0
RENEW_SECONDS = 300.0
START = ("", -(2**62))  # before every (next_try_at, number of a picture)


class Feed:
    """Claims rows under this process's lease, up to a limit."""

    def __init__(self, db: Database, options: Options):
        self.db, self.options = db, options
        self.lease = own_lease()
        self.left = deque(options.sources)
        self.after = START
        self.claimed = 0
        self.block = max(1, min(LARGEST_BLOCK, options.window // 4))
        self.renew_at = time.monotonic() + RENEW_SECONDS
        prepare(db)

    @property
    def exhausted(self) -> bool:
        return not self.left

    def jobs(self) -> Iterator[Job]:
        """The next block of rows, as jobs."""
        room = self.block
        if self.options.limit is not None:
            room = min(room, self.options.limit - self.claimed)
        rows = []
        if room:
            until, scope = utc_in(LEASE_SECONDS), self.options.scope
            rows = claim(self.db, self.lease, until, self.after, room, self.left[0], scope)
        if not room:
            self.left.clear()
        elif len(rows) < room:
            self.left.popleft()
            self.after = START
        now = utc_now()
        for row in rows:
            self.after = (row.next_try_at, row.image_id)
            self.claimed += 1
            yield make_job(row, self.options, now)

    def renew_if_due(self) -> None:
        if time.monotonic() > self.renew_at:
            renew(self.db, self.lease, utc_in(LEASE_SECONDS))
            self.renew_at = time.monotonic() + RENEW_SECONDS

    def give_back(self) -> None:
        """Frees what was claimed and not finished."""
        release(self.db, self.lease)
