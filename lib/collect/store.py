"""The one writer of step 1: raw answers on disk and their rows, the file first and the row second."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from lib.db import Context
from lib.db import queries as table
from lib.db.queries import CollectedResponse, QueryRow
from lib.engines.base import Engine, PageOutcome, PageResponse
from lib.files import answers
from lib.records import ParsedPage, ParseError
from lib.times import to_text, utc_in, utc_now

NOTHING = ParsedPage(())


@dataclass(frozen=True)
class Store:
    """The writer for one engine and one run."""

    context: Context
    engine: Engine

    def begin(self, query: QueryRow, cursor: Mapping[str, Any]) -> None:
        table.begin_query(self.context.db, query.id, self.context.run_id, cursor)
        answers.write_note(self.folder(query), query.engine, query.kind, query.text, query.image_sha256, query.params)

    def save_cursor(self, query: QueryRow, cursor: Mapping[str, Any]) -> None:
        table.save_cursor(self.context.db, query.id, cursor)

    def end(self, query: QueryRow, state: str, outcome: str, detail: str = "", wait: float | None = None) -> None:
        """Records how the work on a query ended, or that the engine asked for patience while it is `running`."""
        table.end_query(self.context.db, query.id, state, outcome, detail, "" if wait is None else utc_in(wait))

    def hold_engine(self, wait: float) -> None:
        table.hold_pending(self.context.db, self.engine.name, utc_in(wait))

    def folder(self, query: QueryRow) -> Path:
        place, as_text = self.context.workspace.xhr / query.engine, table.params_text(query.params)
        return answers.folder_of(place, query.kind, query.text, query.image_sha256, query.params, as_text)

    def keep(
        self, query: QueryRow, page: int, answer: PageResponse, verdict: PageOutcome, parsed: ParsedPage = NOTHING,
        fetched_at: str = "",
    ) -> None:  # fmt: skip
        """Writes an answer, then its row; with results it also moves the query on to the next page.

        `fetched_at` is when the answer was received, where that is not now.
        """
        path = self.folder(query) / answers.file_name(page, answer.part, verdict.outcome, answer.body)
        answers.write_whole(path, answer.body)
        self._record(query, page, answer, verdict, parsed, path, fetched_at or utc_now())

    def adopt(self, query: QueryRow, page: int, url: str) -> PageResponse | None:
        """A page whose file is whole and whose row a kill prevented; None where there is no such file."""
        part = self.engine.part(page)
        known = table.answer_path(self.context.db, query.id, page, part)
        for suffix in ("html", "json") if part == "page" else ("json",):
            path = self.folder(query) / f"{page}.{suffix}"
            if path.is_file() and known != self.context.workspace.to_text(path):
                return PageResponse(part, url, 200, {}, path.read_bytes())
        return None

    def keep_adopted(self, query: QueryRow, page: int, answer: PageResponse, parsed: ParsedPage) -> None:
        path = self.folder(query) / answers.file_name(page, answer.part, "ok", answer.body)
        written = to_text(datetime.fromtimestamp(path.stat().st_mtime, UTC))
        self._record(query, page, answer, PageOutcome("ok"), parsed, path, written)

    def _record(
        self, query: QueryRow, page: int, answer: PageResponse, verdict: PageOutcome, parsed: ParsedPage,
        path: Path, fetched_at: str,
    ) -> None:  # fmt: skip
        db, workspace = self.context.db, self.context.workspace
        before = table.answer_path(db, query.id, page, answer.part)
        text, sha256 = workspace.to_text(path), hashlib.sha256(answer.body).hexdigest()
        headers = {name: answer.headers[name] for name in self.engine.kept_headers if name in answer.headers}
        row = CollectedResponse(
            query.id, page, answer.part, answer.url, answer.status, verdict.outcome, text, sha256, len(answer.body),
            headers, len(parsed.images), parsed.drift, fetched_at,
        )  # fmt: skip
        table.save_response(db, row, self.context.run_id, next_page=page + 1 if verdict.outcome == "ok" else None)
        if before and before != text:
            # The refusal that stood for this page until now; its row is the new answer's.
            workspace.to_path(before).unlink(missing_ok=True)

    def seen(self, query: QueryRow) -> set[str]:
        """The engine's ids of all pictures in the pages stored so far."""
        found: set[str] = set()
        for part, text in table.stored_answers(self.context.db, query.id):
            try:
                body = self.context.workspace.to_path(text).read_bytes()
                found |= {image.engine_id for image in self.engine.parse(part, body).images}
            except (OSError, ParseError):
                continue  # step 2 reports it; here it only means that a repeat may go unnoticed
        return found
