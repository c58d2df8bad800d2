-- Step 5: asking again for what is done, robots.txt, and contents that a better one replaced.
-- downloads.wish: why a finished row is to be asked again: refresh, upgrade
-- downloads.checked_at: UTC, when a finished row was last asked again
ALTER TABLE downloads ADD COLUMN wish TEXT NOT NULL DEFAULT '' CHECK (wish IN ('', 'refresh', 'upgrade'));
ALTER TABLE downloads ADD COLUMN checked_at TEXT NOT NULL DEFAULT '';
CREATE INDEX downloads_by_wish ON downloads (wish, next_try_at) WHERE wish <> '';

-- robots: what an origin's robots.txt said when it was last read
CREATE TABLE robots (
    origin TEXT PRIMARY KEY,                     -- scheme://host:port
    status INTEGER NOT NULL,
    body TEXT NOT NULL DEFAULT '',
    fetched_at TEXT NOT NULL
) STRICT, WITHOUT ROWID;

-- superseded: a content that a picture had before a newer or better one replaced it
CREATE TABLE superseded (
    image_id TEXT NOT NULL REFERENCES images (id) ON DELETE CASCADE,
    sha256 TEXT NOT NULL,
    by_sha256 TEXT NOT NULL DEFAULT '',          -- empty when its owner has opted out since
    run_id INTEGER REFERENCES runs (id) ON DELETE SET NULL,
    PRIMARY KEY (image_id, sha256)
) STRICT, WITHOUT ROWID;
CREATE INDEX superseded_by_sha256 ON superseded (sha256);
