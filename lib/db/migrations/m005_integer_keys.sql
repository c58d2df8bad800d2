-- Pictures are numbered. Engines' ids are mostly hashes, and an index over hashes is touched all over by every batch;
-- numbers are handed out in order, so that new rows stand at the end of every table and of every index but one.
-- A CHECK with a list of three and more makes SQLite build a table for every row; ORs cost nothing.

-- images: one picture as an engine knows it
CREATE TABLE new_images (
    id INTEGER PRIMARY KEY,                      -- means nothing outside this database
    key TEXT NOT NULL UNIQUE,                    -- <engine>:<the engine's id>
    engine TEXT NOT NULL,
    page_url TEXT NOT NULL DEFAULT '',           -- the page that shows it
    title TEXT NOT NULL DEFAULT '',
    snippet TEXT NOT NULL DEFAULT '',            -- text around it, without markup
    domain TEXT NOT NULL DEFAULT '',             -- host name of the page
    registrable_domain TEXT NOT NULL DEFAULT '', -- by the public suffix list
    width INTEGER,                               -- claimed, pixels
    height INTEGER,                              -- claimed, pixels
    bytes INTEGER,                               -- claimed
    format TEXT NOT NULL DEFAULT '',             -- claimed: jpeg, png, …
    published_at TEXT NOT NULL DEFAULT '',       -- as the engine says it
    is_gif INTEGER NOT NULL DEFAULT 0 CHECK (is_gif IN (0, 1)),
    is_censored INTEGER NOT NULL DEFAULT 0 CHECK (is_censored IN (0, 1)),
    is_shop INTEGER NOT NULL DEFAULT 0 CHECK (is_shop IN (0, 1)),
    creator TEXT NOT NULL DEFAULT '',
    creator_url TEXT NOT NULL DEFAULT '',
    license TEXT NOT NULL DEFAULT '',
    license_url TEXT NOT NULL DEFAULT '',
    attribution TEXT NOT NULL DEFAULT '',
    extra TEXT NOT NULL DEFAULT '{}',            -- JSON: what is kept but never queried
    first_seen_at TEXT NOT NULL
) STRICT;
INSERT INTO new_images SELECT rowid, * FROM images ORDER BY rowid;

-- Rows whose picture has gone keep no number that a later picture could be given: theirs are negative.
CREATE TEMP TABLE numbers (key TEXT PRIMARY KEY, id INTEGER NOT NULL) WITHOUT ROWID;
INSERT INTO numbers SELECT image_id, -row_number() OVER (ORDER BY image_id) FROM (
    SELECT image_id FROM results UNION SELECT image_id FROM image_variants
    UNION SELECT image_id FROM downloads UNION SELECT image_id FROM superseded
    EXCEPT SELECT id FROM images
);
INSERT INTO numbers SELECT key, id FROM new_images;

-- results: this query showed this picture at this rank
CREATE TABLE new_results (
    query_id INTEGER NOT NULL REFERENCES queries (id) ON DELETE CASCADE,
    image_id INTEGER NOT NULL REFERENCES images (id) ON DELETE CASCADE,
    response_id INTEGER REFERENCES responses (id) ON DELETE SET NULL,
    rank INTEGER NOT NULL,                       -- from 0, over all pages
    PRIMARY KEY (query_id, image_id)
) STRICT, WITHOUT ROWID;
INSERT INTO new_results SELECT query_id, id, response_id, rank FROM results JOIN numbers ON key = image_id ORDER BY 1, 2;

-- image_variants: one address of a picture
CREATE TABLE new_image_variants (
    id INTEGER PRIMARY KEY,
    image_id INTEGER NOT NULL REFERENCES images (id) ON DELETE CASCADE,
    kind TEXT NOT NULL CHECK (kind = 'original' OR kind = 'preview' OR kind = 'dup' OR kind = 'thumb'),
    url TEXT NOT NULL,
    width INTEGER,                               -- claimed, pixels
    height INTEGER,                              -- claimed, pixels
    bytes INTEGER,                               -- claimed
    referer TEXT NOT NULL DEFAULT '',            -- to send when fetching
    expires_at TEXT NOT NULL DEFAULT '',         -- UTC, for signed addresses
    UNIQUE (image_id, kind, url)
) STRICT;
INSERT INTO new_image_variants
    SELECT v.id, n.id, v.kind, v.url, v.width, v.height, v.bytes, v.referer, v.expires_at
    FROM image_variants v CROSS JOIN numbers n ON n.key = v.image_id ORDER BY v.id;

-- downloads: the state of fetching one picture
CREATE TABLE new_downloads (
    image_id INTEGER PRIMARY KEY REFERENCES images (id) ON DELETE CASCADE,
    state TEXT NOT NULL DEFAULT 'pending' CHECK (state = 'pending' OR state = 'done' OR state = 'failed'
        OR state = 'opted_out' OR state = 'blocked'),
    reason TEXT NOT NULL DEFAULT '',             -- timeout, http_404, not_an_image, too_large, …
    attempts INTEGER NOT NULL DEFAULT 0,
    next_try_at TEXT NOT NULL DEFAULT '',        -- UTC
    variant_id INTEGER REFERENCES image_variants (id) ON DELETE SET NULL, -- the address that won
    kind TEXT NOT NULL DEFAULT '',               -- original, preview, dup or thumb: the rung that won
    sha256 TEXT REFERENCES files (sha256),
    http_status INTEGER,
    final_url TEXT NOT NULL DEFAULT '',
    content_type TEXT NOT NULL DEFAULT '',       -- as the server said
    etag TEXT NOT NULL DEFAULT '',
    last_modified TEXT NOT NULL DEFAULT '',
    bytes INTEGER,
    elapsed_ms INTEGER,
    log TEXT NOT NULL DEFAULT '[]',              -- JSON: the addresses tried, each with its reason
    lease TEXT NOT NULL DEFAULT '',              -- the process that works on it
    lease_until TEXT NOT NULL DEFAULT '',        -- UTC
    run_id INTEGER REFERENCES runs (id) ON DELETE SET NULL,
    updated_at TEXT NOT NULL,
    wish TEXT NOT NULL DEFAULT '' CHECK (wish = '' OR wish = 'refresh' OR wish = 'upgrade'),
    checked_at TEXT NOT NULL DEFAULT ''
) STRICT;
INSERT INTO new_downloads
    SELECT n.id, state, reason, attempts, next_try_at, variant_id, kind, sha256, http_status, final_url, content_type,
        etag, last_modified, bytes, elapsed_ms, log, lease, lease_until, run_id, updated_at, wish, checked_at
    FROM downloads JOIN numbers n ON n.key = image_id ORDER BY n.id;

-- superseded: a content that a picture had before a newer or better one replaced it
CREATE TABLE new_superseded (
    image_id INTEGER NOT NULL REFERENCES images (id) ON DELETE CASCADE,
    sha256 TEXT NOT NULL,
    by_sha256 TEXT NOT NULL DEFAULT '',          -- empty when its owner has opted out since
    run_id INTEGER REFERENCES runs (id) ON DELETE SET NULL,
    PRIMARY KEY (image_id, sha256)
) STRICT, WITHOUT ROWID;
INSERT INTO new_superseded SELECT id, sha256, by_sha256, run_id FROM superseded JOIN numbers ON key = image_id;

DROP TABLE superseded;
DROP TABLE downloads;
DROP TABLE image_variants;
DROP TABLE results;
DROP TABLE images;
DROP TABLE numbers;
ALTER TABLE new_images RENAME TO images;
ALTER TABLE new_results RENAME TO results;
ALTER TABLE new_image_variants RENAME TO image_variants;
ALTER TABLE new_downloads RENAME TO downloads;
ALTER TABLE new_superseded RENAME TO superseded;

CREATE INDEX images_by_registrable_domain ON images (registrable_domain);
CREATE INDEX results_by_image ON results (image_id);
CREATE INDEX results_by_response ON results (response_id);
CREATE INDEX downloads_by_state ON downloads (state, next_try_at);
CREATE INDEX downloads_by_sha256 ON downloads (sha256) WHERE sha256 IS NOT NULL;
CREATE INDEX downloads_by_variant ON downloads (variant_id) WHERE variant_id IS NOT NULL;
CREATE INDEX downloads_by_wish ON downloads (wish, next_try_at) WHERE wish <> '';
CREATE INDEX superseded_by_sha256 ON superseded (sha256);
