"""Step 7: every way into `sorted/`, sorting anew, the undo; the export in every form."""

from __future__ import annotations

from made import own_pictures, steady
from scenarios_dedup import after
from support import drawing
from torture import Folder, Scenario

from lib.db import open_database

UNDO = ("sort", "--undo", "last")
ONE = ("--workers", "1", "-q")


def photos(folder: Folder) -> None:
    """Wide, high and square pictures in two folders, with a sidecar and a name that comes twice."""
    for number, (width, height) in enumerate([(96, 64), (64, 96), (80, 80), (120, 64)]):
        place = folder.photos / ("b" if number % 2 else "a")
        place.mkdir(parents=True, exist_ok=True)
        drawing(number, width, height).save(place / f"{number // 2}.jpg", quality=90)
    (folder.photos / "a" / "0.json").write_text('{"title": "a sidecar"}')
    steady(folder)


def by(criterion: str, mode: str, *more: str) -> tuple[str, ...]:
    return ("sort", criterion, *more, "--mode", mode, *ONE)


MODES = ("copy", "move", "hardlink", "symlink")
EDGES = ("--edges", "0.005,0.01")
OTHER_EDGES = ("--edges", "0.007,0.02")
LABELS = frozenset({"labels", "dataset_pictures"})  # on which side of a split a picture is stays known, and what was in
FORMS = ("imagefolder", "webdataset", "parquet")


def export(form: str, *more: str) -> tuple[str, ...]:
    return ("sort", "export", "--as", form, "--split", "60,20,20", *more, *ONE)


def two_datasets_and_an_opt_out(folder: Folder) -> None:
    """An owner has opted out since: of one picture in two datasets of different forms."""
    after(own_pictures, export("webdataset"), export("imagefolder", "--to", "{ws}/files"))(folder)
    with open_database(folder.ws / "gleaner.db") as db, db.transaction():
        for (sha256,) in db.rows("SELECT sha256 FROM downloads WHERE image_id = 1"):
            db.execute("INSERT INTO superseded (image_id, sha256) VALUES (1, ?)", (sha256,))
        db.execute("UPDATE downloads SET state = 'opted_out', sha256 = NULL WHERE image_id = 1")


SORT = [
    *(Scenario(f"sort-{mode}-folder", photos, by("orientation", mode, "{photos}"), undo=UNDO) for mode in MODES),
    *(Scenario(f"sort-{mode}-own", own_pictures, by("megapixels", mode, *EDGES), undo=UNDO) for mode in MODES),
    Scenario("sort-quality", own_pictures, by("quality", "move"), undo=UNDO),
    Scenario("sort-two-workers", own_pictures, ("sort", "quality", "--workers", "2", "-q"), undo=UNDO, slow=True),
    *(
        Scenario(
            f"sort-anew-{mode}",
            after(own_pictures, by("megapixels", mode, *EDGES)),
            by("megapixels", mode, *OTHER_EDGES),
        )
        for mode in MODES
    ),
    Scenario(
        "sort-anew-folder",
        after(photos, by("megapixels", "move", "{photos}", *EDGES)),
        by("megapixels", "move", "{photos}", *OTHER_EDGES),
    ),
    *(Scenario(f"sort-undo-{mode}-folder", after(photos, by("orientation", mode, "{photos}")), UNDO) for mode in MODES),
    *(Scenario(f"sort-undo-{mode}-own", after(own_pictures, by("megapixels", mode, *EDGES)), UNDO) for mode in MODES),
    Scenario(
        "sort-undo-anew",
        after(own_pictures, by("megapixels", "move", *EDGES), by("megapixels", "move", *OTHER_EDGES)),
        ("sort", "--undo", "2"),
    ),
    *(Scenario(f"export-{form}", own_pictures, export(form), undo=UNDO, caches=LABELS) for form in FORMS),
    Scenario(
        "export-hardlink",
        own_pictures,
        export("imagefolder", "--mode", "hardlink"),
        undo=UNDO,
        caches=LABELS,
    ),
    Scenario("export-replace", after(own_pictures, export("webdataset")), export("imagefolder", "--replace")),
    Scenario(
        "export-drop",
        two_datasets_and_an_opt_out,
        ("sort", "export", "--drop-opted-out", *ONE),
        undo=("sort", "--undo", "3"),
        caches=LABELS,
    ),
    *(Scenario(f"export-undo-{form}", after(own_pictures, export(form)), UNDO, deletes=True) for form in FORMS),
]
