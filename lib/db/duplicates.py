"""The repeats that step 6 found and what it took away.

`duplicates` holds the files that repeat others, as each run found them. `tombstones` holds the contents that were taken
away, and `buried_addresses` the addresses that brought them: step 5 does not fetch these again.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from lib.db.connection import Database
from lib.db.journal import Action
from lib.times import utc_now

REMOVED = "removed_repeat"  # why step 5 did not fetch a picture

_RECORD = (
    "INSERT INTO duplicates (run_id, path, sha256, group_no, keeper_path, keeper_sha256, kind, distance, decision,"
    " reason) SELECT :run_id, :path, :sha256, :group_no, :keeper_path, :keeper_sha256, :kind, :distance, :decision,"
    " :reason WHERE :decision = 'remove' OR NOT EXISTS (SELECT 1 FROM duplicates WHERE sha256 = :sha256"
    " AND path = :path AND keeper_path = :keeper_path AND keeper_sha256 = :keeper_sha256 AND kind = :kind"
    " AND decision = :decision AND reason = :reason)"
)

_REPEATS = (
    " FROM actions JOIN duplicates ON duplicates.run_id = actions.run_id AND duplicates.path = actions.source"
    " AND duplicates.keeper_sha256 <> actions.sha256"
)
_MARK_REMOVED = (
    "INSERT INTO tombstones (sha256, kind, keeper_sha256, run_id, created_at)"
    f" SELECT actions.sha256, duplicates.kind, duplicates.keeper_sha256, actions.run_id, ? {_REPEATS}"
    " WHERE actions.id = ? AND actions.kind = 'move' AND actions.sha256 <> '' ON CONFLICT (sha256) DO NOTHING"
)
_MARK_ADDRESSES = (
    f"INSERT OR IGNORE INTO buried_addresses SELECT url, downloads.sha256 {_REPEATS}"
    " JOIN tombstones ON tombstones.sha256 = actions.sha256"
    " JOIN downloads ON downloads.sha256 = actions.sha256"
    " JOIN image_variants ON image_variants.id = downloads.variant_id WHERE actions.id = ?"
)
_UNMARK_REMOVED = (
    f"DELETE FROM tombstones WHERE sha256 = (SELECT actions.sha256 {_REPEATS}"
    " WHERE actions.id = ? AND actions.kind = 'move')"
)
_MISSED = (
    f"SELECT actions.id AS id {_REPEATS} JOIN runs ON runs.id = actions.run_id"
    " WHERE runs.step = 'dedup' AND runs.exit_code IS NOT 0"
    " AND actions.kind = 'move' AND actions.state = 'done' AND actions.sha256 <> ''"
    " AND NOT EXISTS (SELECT 1 FROM tombstones WHERE tombstones.sha256 = actions.sha256)"
    # Of two files with one content the other one may be back.
    " AND actions.sha256 NOT IN (SELECT back.sha256 FROM actions AS back WHERE back.state = 'undone')"
)


@dataclass(frozen=True)
class DuplicateRow:
    """One file of a group that is not the group's keeper. Paths are as `Workspace.to_text` writes them."""

    path: str
    sha256: str
    group_no: int
    keeper_path: str
    keeper_sha256: str
    kind: str
    distance: float
    decision: str
    reason: str


def record_duplicates(db: Database, run_id: int, rows: Iterable[DuplicateRow]) -> int:
    """Writes what a run found and gives the number of rows that are new.

    A finding that takes nothing away and stands already under an earlier run is not written again: running the step
    twice on the same pictures changes nothing.
    """
    with db.transaction():
        return sum(db.execute(_RECORD, {**vars(row), "run_id": run_id}).rowcount for row in rows)


def present_file_count(db: Database) -> int:
    """Counts the files that step 5 left for the later steps."""
    return int(db.value("SELECT count(*) FROM files WHERE state = 'present'"))


@dataclass(frozen=True)
class Source:
    """The origin of a downloaded content: the page that it was found on, its title, and its date as the engine has it;
    each empty where it is not known."""

    page_url: str = ""
    title: str = ""
    published: str = ""


def sources_of(db: Database, contents: list[str]) -> dict[str, Source]:
    """Returns the source of each downloaded content. Of several pictures the one with most to tell."""
    rows = db.execute(
        "SELECT downloads.sha256, images.page_url, images.title, images.published_at FROM downloads"
        " JOIN images ON images.id = downloads.image_id WHERE downloads.sha256 IN (SELECT value FROM json_each(?))"
        " ORDER BY (images.page_url = '') + (images.title = '') DESC, images.published_at, images.page_url DESC",
        (json.dumps(contents),),
    )
    return {sha256: Source(*told) for sha256, *told in rows}


@dataclass(frozen=True)
class TakenPicture:
    """A picture that step 6 has moved away: its move in the journal, and what it was found to repeat.

    `keeper_path`, `keeper_sha256`, `kind` and `reason` are empty where its run has left no finding.
    """

    move: Action
    keeper_path: str
    keeper_sha256: str
    kind: str
    distance: float
    reason: str = ""


def contents_of_places(db: Database) -> dict[str, str]:
    """Returns path -> content of all files that were found to repeat or to be repeated."""
    return db.mapping("SELECT path, sha256 FROM duplicates UNION SELECT keeper_path, keeper_sha256 FROM duplicates")


def taken_pictures(db: Database, quarantine: str, state: str = "done") -> Iterator[TakenPicture]:
    """Yields the pictures that step 6 has moved into the quarantine (its name with a closing slash), and the notes
    beside them, whose moves have no content; newest first. With the state `undone` those that are back."""
    sql = (
        "SELECT actions.id, actions.run_id, source, target, actions.sha256, bytes, coalesce(keeper_path, '') AS keeper,"
        " coalesce(keeper_sha256, '') AS keeper_sha256, coalesce(duplicates.kind, '') AS what,"
        " coalesce(distance, 0) AS distance, coalesce(duplicates.reason, '') AS why"
        " FROM actions JOIN runs ON runs.id = actions.run_id"
        " LEFT JOIN duplicates ON duplicates.run_id = actions.run_id AND duplicates.path = source"
        " WHERE actions.id < :last AND runs.step = 'dedup' AND actions.kind = 'move' AND state = :state"
        " AND substr(target, 1, :length) = :below ORDER BY actions.id DESC"
    )
    values = {"length": len(quarantine), "below": quarantine, "state": state}
    for row in db.in_blocks(sql, 2**63 - 1, block=2_000, **values):
        move = Action(
            "move", row["source"], row["target"], row["sha256"], row["bytes"], id=row["id"], run_id=row["run_id"]
        )
        yield TakenPicture(move, row["keeper"], row["keeper_sha256"], row["what"], row["distance"], row["why"])


def known_kept(db: Database) -> dict[tuple[str, str], set[str]]:
    """Returns (path, content) of the files that a person has kept, with the contents of the keepers beside them."""
    found: dict[tuple[str, str], set[str]] = {}
    for path, sha256, keeper in db.rows("SELECT path, sha256, keeper_sha256 FROM kept_files"):
        found.setdefault((path, sha256), set()).add(keeper)
    return found


def keep_files(db: Database, run_id: int, files: Iterable[tuple[str, str, str]]) -> None:
    """Remembers (path, content, content of the keeper) of files that a person has kept."""
    now = utc_now()
    with db.transaction():
        db.executemany(
            "INSERT INTO kept_files (path, sha256, keeper_sha256, run_id, created_at) VALUES (?, ?, ?, ?, ?)"
            " ON CONFLICT DO NOTHING",
            ((*file, run_id, now) for file in files),
        )


def forget_kept(db: Database, run_id: int) -> None:
    with db.transaction():
        db.execute("DELETE FROM kept_files WHERE run_id = ?", (run_id,))


def query_picture_paths(db: Database) -> list[str]:
    """Returns where the query pictures of step 1 lie, as the workspace writes it."""
    return db.column("SELECT DISTINCT image_path FROM queries WHERE kind = 'image' AND image_path <> '' ORDER BY 1")


def places_of(db: Database, head: str) -> list[str]:
    """Returns where the present files lie whose sha256 begins with some digits."""
    sql = "SELECT path FROM files WHERE state = 'present' AND sha256 >= ? AND sha256 < ?"
    return db.column(sql, (head, head + "g"))


def set_file_state(db: Database, sha256: str, path: str, state: str) -> None:
    db.execute("UPDATE files SET state = ? WHERE sha256 = ? AND path = ?", (state, sha256, path))


def forget_unmoved(db: Database, run_id: int) -> None:
    """Takes out what a run that did not come to its end was to move and has not: the next run finds it again.

    Where it has moved nothing, all that it found goes.
    """
    moved = "SELECT source FROM actions WHERE run_id = :run AND kind = 'move' AND state = 'done'"
    with db.transaction():
        db.execute(
            f"DELETE FROM duplicates WHERE run_id = :run AND (NOT EXISTS ({moved})"
            f" OR decision = 'remove' AND path NOT IN ({moved}))",
            {"run": run_id},
        )


def forget_duplicates(db: Database, run_id: int) -> None:
    """Takes out the groups of a run that was undone; its journal stays.

    A later run may have brought a picture back. To undo that one gives the picture to this run again, and it has to be
    known then what it repeats.
    """
    returned = (
        "SELECT gone.source FROM actions AS back"
        " JOIN actions AS gone ON gone.id = json_extract(back.payload, '$.returns')"
        " WHERE back.kind = 'move' AND back.state = 'done' AND back.payload <> '{}' AND gone.run_id = :run"
    )
    with db.transaction():
        db.execute(f"DELETE FROM duplicates WHERE run_id = :run AND path NOT IN ({returned})", {"run": run_id})


def reported_run(db: Database) -> int | None:
    """Returns the newest run that found repeats which no run before it had found."""
    found = db.value("SELECT max(run_id) FROM duplicates WHERE group_no > 0")  # 0: an exchange
    return None if found is None else int(found)


def mark_removed(db: Database, ids: Sequence[int]) -> None:
    """Remembers what these entries of the journal took away as repeats; inside the caller's transaction.

    A content whose very bytes stay is not taken away. What other steps move is in no group and leaves nothing here.
    """
    now = utc_now()
    db.executemany(_MARK_REMOVED, ((now, number) for number in ids))
    db.executemany(_MARK_ADDRESSES, ((number,) for number in ids))


def unmark_removed(db: Database, ids: Sequence[int]) -> None:
    """Forgets contents that are back by these entries of the journal; inside the caller's transaction.

    What step 5 left out for their sake may be fetched.
    """
    if db.executemany(_UNMARK_REMOVED, ((number,) for number in ids)).rowcount > 0:
        db.execute(
            "UPDATE downloads SET state = 'pending', reason = '' WHERE state = 'blocked' AND reason = ?", (REMOVED,)
        )


def mark_missed(db: Database) -> int:
    """Remembers what runs took away that did not come to their end and could not say so; gives the number of contents.

    It costs a look at such runs alone.
    """
    if missing := db.column(_MISSED):
        with db.transaction():
            mark_removed(db, missing)
    return len(missing)


def is_removed(db: Database, sha256: str) -> bool:
    return db.value("SELECT 1 FROM tombstones WHERE sha256 = ?", (sha256,)) is not None


def removed_images(db: Database, image_ids: Sequence[int]) -> dict[int, str]:
    """Returns image id -> content for those of the pictures of which an address brought a content that was taken away.

    Step 5 asks before it fetches a row: what was taken away has a better copy that stays.
    """
    if db.value("SELECT 1 FROM buried_addresses LIMIT 1") is None:
        return {}
    # A content that is here, whoever brought it back, does not count as taken away.
    return db.mapping(
        "SELECT image_id, min(files.sha256) FROM image_variants"
        " JOIN buried_addresses ON buried_addresses.url = image_variants.url"
        " JOIN files ON files.sha256 = buried_addresses.sha256 AND files.state <> 'present'"
        " WHERE image_id IN (SELECT value FROM json_each(?)) GROUP BY image_id",
        (json.dumps(image_ids),),
    )
