-- runs: one run of a step
CREATE TABLE runs (
    id INTEGER PRIMARY KEY,
    step TEXT NOT NULL,                          -- collect, ingest, report, cleanup, download, dedup, sort
    arguments TEXT NOT NULL DEFAULT '{}',        -- JSON, as parsed
    started_at TEXT NOT NULL,                    -- UTC
    finished_at TEXT,                            -- UTC; empty while running, and after a kill
    exit_code INTEGER,
    counts TEXT NOT NULL DEFAULT '{}',           -- JSON, the summary's numbers
    version TEXT NOT NULL,                       -- Gleaner's version
    host TEXT NOT NULL DEFAULT '',
    pid INTEGER NOT NULL DEFAULT 0
) STRICT;

-- queries: one search, and how far it got
CREATE TABLE queries (
    id INTEGER PRIMARY KEY,
    engine TEXT NOT NULL,
    kind TEXT NOT NULL CHECK (kind IN ('image', 'keyword', 'import')),
    text TEXT NOT NULL DEFAULT '',               -- the keyword; empty for a picture
    image_sha256 TEXT NOT NULL DEFAULT '',       -- the query picture's content; empty for a keyword
    image_path TEXT NOT NULL DEFAULT '',         -- where the query picture lay
    image_phash TEXT NOT NULL DEFAULT '',        -- its perceptual hash, hexadecimal
    params TEXT NOT NULL DEFAULT '{}',           -- JSON with sorted keys: filters, host
    state TEXT NOT NULL DEFAULT 'pending' CHECK (state IN ('pending', 'running', 'done', 'stopped', 'failed')),
    outcome TEXT NOT NULL DEFAULT '' CHECK (outcome IN ('', 'ok', 'end', 'empty', 'captcha', 'blocked', 'consent',
        'region', 'wrong_tab', 'upload_rejected', 'parse_error', 'network')),
    detail TEXT NOT NULL DEFAULT '',             -- what a person should know about the outcome
    cursor TEXT NOT NULL DEFAULT '{}',           -- JSON: what the engine needs to go on (its id of the uploaded picture)
    next_page INTEGER NOT NULL DEFAULT 0,        -- the first page not yet stored
    not_before TEXT NOT NULL DEFAULT '',         -- UTC; the engine asked to wait until then
    run_id INTEGER REFERENCES runs (id) ON DELETE SET NULL,
    created_at TEXT NOT NULL,
    updated_at TEXT NOT NULL,
    UNIQUE (engine, kind, text, image_sha256, params)
) STRICT;

-- responses: one raw answer on disk
CREATE TABLE responses (
    id INTEGER PRIMARY KEY,
    query_id INTEGER NOT NULL REFERENCES queries (id) ON DELETE CASCADE,
    page INTEGER NOT NULL,                       -- from 0
    part TEXT NOT NULL CHECK (part IN ('page', 'xhr', 'api')),
    url TEXT NOT NULL DEFAULT '',
    http_status INTEGER,
    outcome TEXT NOT NULL DEFAULT 'ok' CHECK (outcome IN ('ok', 'end', 'empty', 'captcha', 'blocked', 'consent',
        'region', 'wrong_tab', 'upload_rejected', 'parse_error', 'network')),
    path TEXT NOT NULL DEFAULT '',               -- the file, relative to the workspace
    sha256 TEXT NOT NULL DEFAULT '',
    bytes INTEGER NOT NULL DEFAULT 0,
    headers TEXT NOT NULL DEFAULT '{}',          -- JSON: the headers of interest
    items INTEGER NOT NULL DEFAULT 0,            -- pictures found in it
    drift TEXT NOT NULL DEFAULT '{}',            -- JSON: unknown keys, missing keys, share of empty originals
    fetched_at TEXT NOT NULL,
    run_id INTEGER REFERENCES runs (id) ON DELETE SET NULL,
    ingest_state TEXT NOT NULL DEFAULT 'pending' CHECK (ingest_state IN ('pending', 'done', 'failed')),
    ingest_reason TEXT NOT NULL DEFAULT '',      -- why it could not be read
    parser TEXT NOT NULL DEFAULT '',             -- name and version of the parser that read it
    UNIQUE (query_id, page, part)
) STRICT;
CREATE INDEX responses_by_ingest_state ON responses (ingest_state, id);

-- images: one picture as an engine knows it
CREATE TABLE images (
    id TEXT PRIMARY KEY,                         -- <engine>:<the engine's id>
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
CREATE INDEX images_by_registrable_domain ON images (registrable_domain);

-- results: this query showed this picture at this rank
CREATE TABLE results (
    query_id INTEGER NOT NULL REFERENCES queries (id) ON DELETE CASCADE,
    image_id TEXT NOT NULL REFERENCES images (id) ON DELETE CASCADE,
    response_id INTEGER REFERENCES responses (id) ON DELETE SET NULL,
    rank INTEGER NOT NULL,                       -- from 0, over all pages
    PRIMARY KEY (query_id, image_id)
) STRICT, WITHOUT ROWID;
CREATE INDEX results_by_image ON results (image_id);
CREATE INDEX results_by_response ON results (response_id);

-- image_variants: one address of a picture
CREATE TABLE image_variants (
    id INTEGER PRIMARY KEY,
    image_id TEXT NOT NULL REFERENCES images (id) ON DELETE CASCADE,
    kind TEXT NOT NULL CHECK (kind IN ('original', 'preview', 'dup', 'thumb')),
    url TEXT NOT NULL,
    width INTEGER,                               -- claimed, pixels
    height INTEGER,                              -- claimed, pixels
    bytes INTEGER,                               -- claimed
    referer TEXT NOT NULL DEFAULT '',            -- to send when fetching
    expires_at TEXT NOT NULL DEFAULT '',         -- UTC, for signed addresses
    UNIQUE (image_id, kind, url)
) STRICT;
CREATE INDEX image_variants_by_url ON image_variants (url);

-- files: one distinct content on disk
CREATE TABLE files (
    sha256 TEXT PRIMARY KEY,
    path TEXT NOT NULL,                          -- relative to the workspace, or absolute outside it
    bytes INTEGER NOT NULL,
    format TEXT NOT NULL,                        -- by the bytes: jpeg, png, webp, gif, …
    width INTEGER,                               -- real, pixels, before orientation
    height INTEGER,                              -- real, pixels, before orientation
    frames INTEGER NOT NULL DEFAULT 1,
    orientation INTEGER NOT NULL DEFAULT 1 CHECK (orientation BETWEEN 1 AND 8), -- EXIF
    state TEXT NOT NULL DEFAULT 'present' CHECK (state IN ('present', 'quarantined', 'missing')),
    added_at TEXT NOT NULL
) STRICT;
CREATE INDEX files_by_state ON files (state);
CREATE INDEX files_by_path ON files (path);

-- downloads: the state of fetching one picture
CREATE TABLE downloads (
    image_id TEXT PRIMARY KEY REFERENCES images (id) ON DELETE CASCADE,
    state TEXT NOT NULL DEFAULT 'pending' CHECK (state IN ('pending', 'done', 'failed', 'opted_out', 'blocked')),
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
    updated_at TEXT NOT NULL
) STRICT;
CREATE INDEX downloads_by_state ON downloads (state, next_try_at);
CREATE INDEX downloads_by_sha256 ON downloads (sha256);
CREATE INDEX downloads_by_variant ON downloads (variant_id);

-- hashes: one perceptual hash of a content
CREATE TABLE hashes (
    sha256 TEXT NOT NULL,
    kind TEXT NOT NULL,                          -- phash, dhash, …
    bits INTEGER NOT NULL,
    value BLOB,                                  -- big-endian bits; empty for a picture too flat to hash
    algorithm TEXT NOT NULL,                     -- version of the way it was computed
    PRIMARY KEY (sha256, kind, bits)
) STRICT, WITHOUT ROWID;

-- duplicates: this file repeats that one
CREATE TABLE duplicates (
    run_id INTEGER NOT NULL REFERENCES runs (id) ON DELETE CASCADE,
    path TEXT NOT NULL,
    sha256 TEXT NOT NULL,
    group_no INTEGER NOT NULL,
    keeper_path TEXT NOT NULL,
    keeper_sha256 TEXT NOT NULL,
    kind TEXT NOT NULL CHECK (kind IN ('bytes', 'pixels', 'same', 'edited', 'semantic', 'filename')),
    distance REAL NOT NULL,
    decision TEXT NOT NULL CHECK (decision IN ('remove', 'review', 'keep')),
    reason TEXT NOT NULL DEFAULT '',
    PRIMARY KEY (run_id, path)
) STRICT, WITHOUT ROWID;
CREATE INDEX duplicates_by_sha256 ON duplicates (sha256);

-- scores: what a model or a formula measured on a content
CREATE TABLE scores (
    sha256 TEXT NOT NULL,
    metric TEXT NOT NULL,
    version TEXT NOT NULL,                       -- of the formula or the model, preprocessing included
    value REAL,                                  -- empty when it could not be scored
    reason TEXT NOT NULL DEFAULT '',             -- the worst trait, or why there is no score
    detail TEXT NOT NULL DEFAULT '{}',           -- JSON: the parts of the score
    created_at TEXT NOT NULL,
    PRIMARY KEY (sha256, metric, version)
) STRICT, WITHOUT ROWID;

-- labels: the bucket that a criterion put a content in
CREATE TABLE labels (
    sha256 TEXT NOT NULL,
    criterion TEXT NOT NULL,
    label TEXT NOT NULL,
    score REAL,
    reason TEXT NOT NULL DEFAULT '',
    version TEXT NOT NULL DEFAULT '',
    run_id INTEGER REFERENCES runs (id) ON DELETE SET NULL,
    created_at TEXT NOT NULL,
    PRIMARY KEY (sha256, criterion)
) STRICT, WITHOUT ROWID;

-- embeddings: a vector of a content
CREATE TABLE embeddings (
    sha256 TEXT NOT NULL,
    model TEXT NOT NULL,
    version TEXT NOT NULL,                       -- weights and preprocessing
    dimensions INTEGER NOT NULL,
    vector BLOB NOT NULL,                        -- float16, little-endian, unit length
    PRIMARY KEY (sha256, model, version)
) STRICT;

-- contents: which content lies at a path outside the database's own files (a cache that spares reading it again)
CREATE TABLE contents (
    path TEXT PRIMARY KEY,                       -- absolute
    bytes INTEGER NOT NULL,
    mtime_ns INTEGER NOT NULL,
    inode INTEGER NOT NULL,
    sha256 TEXT NOT NULL
) STRICT, WITHOUT ROWID;

-- actions: the journal of what was moved, copied, linked or taken out
CREATE TABLE actions (
    id INTEGER PRIMARY KEY,
    run_id INTEGER NOT NULL REFERENCES runs (id),
    kind TEXT NOT NULL CHECK (kind IN ('move', 'copy', 'hardlink', 'symlink', 'write', 'remove_row', 'change_row')),
    state TEXT NOT NULL CHECK (state IN ('planned', 'done', 'dropped', 'undone', 'failed')),
    source TEXT NOT NULL DEFAULT '',
    target TEXT NOT NULL DEFAULT '',
    sha256 TEXT NOT NULL DEFAULT '',             -- of the file, as planned
    bytes INTEGER NOT NULL DEFAULT 0,
    table_name TEXT NOT NULL DEFAULT '',         -- for remove_row and change_row
    payload TEXT NOT NULL DEFAULT '{}',          -- JSON: the row as it was, or what else undo needs
    reason TEXT NOT NULL DEFAULT '',
    created_at TEXT NOT NULL,
    finished_at TEXT NOT NULL DEFAULT ''
) STRICT;
CREATE INDEX actions_by_run ON actions (run_id, id);
CREATE INDEX actions_by_state ON actions (state, id);
