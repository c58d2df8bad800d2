-- near_hashes: a hash that has been compared with every other one of this table
CREATE TABLE near_hashes (
    hash BLOB PRIMARY KEY,                       -- 256 bits, big-endian
    algorithm TEXT NOT NULL,                     -- version of the hash, its views and the radius
    views BLOB NOT NULL                          -- hashes of the picture without its border, turned, cropped
) STRICT;

-- near_pairs: two hashes of near_hashes that lie within the radius, as they are or under a view
CREATE TABLE near_pairs (
    one BLOB NOT NULL,                           -- the smaller hash
    other BLOB NOT NULL,
    distance INTEGER NOT NULL,                   -- bits that differ
    view INTEGER NOT NULL,                       -- -1: as they are; else the number of the view
    flipped INTEGER NOT NULL CHECK (flipped IN (0, 1)), -- whether the view is one of `other`
    inside INTEGER NOT NULL CHECK (inside IN (0, 1)),   -- whether it was met by what is inside a border
    PRIMARY KEY (one, other)
) STRICT, WITHOUT ROWID;

-- relations: what one content is to another that stays, as step 6 judged it (a cache)
CREATE TABLE relations (
    keeper TEXT NOT NULL,
    other TEXT NOT NULL,
    algorithm TEXT NOT NULL,                     -- version of the judgement and its limits
    kind TEXT NOT NULL CHECK (kind IN ('', 'bytes', 'pixels', 'same', 'edited', 'semantic')), -- empty: nothing
    distance REAL NOT NULL,
    reason TEXT NOT NULL,
    blocked TEXT NOT NULL,                       -- why it must stay although it is a repeat
    PRIMARY KEY (keeper, other)
) STRICT, WITHOUT ROWID;

-- not_repeats: two contents that a person has said are no repeats of each other
CREATE TABLE not_repeats (
    one TEXT NOT NULL,                           -- the smaller digest
    other TEXT NOT NULL,
    run_id INTEGER REFERENCES runs (id) ON DELETE SET NULL,
    created_at TEXT NOT NULL,
    PRIMARY KEY (one, other)
) STRICT, WITHOUT ROWID;

-- tombstones: a content that was taken away as a repeat; step 5 does not fetch it again
CREATE TABLE tombstones (
    sha256 TEXT PRIMARY KEY,
    kind TEXT NOT NULL,                          -- of the repeat
    keeper_sha256 TEXT NOT NULL,                 -- the content that stays
    run_id INTEGER REFERENCES runs (id) ON DELETE SET NULL,
    created_at TEXT NOT NULL
) STRICT, WITHOUT ROWID;
