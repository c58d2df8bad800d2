-- kept_files: files that a person has kept beside another one, or brought back: step 6 moves them no more
CREATE TABLE kept_files (
    path TEXT NOT NULL,
    sha256 TEXT NOT NULL,                        -- what lay there then: another content is another file
    keeper_sha256 TEXT NOT NULL,                 -- beside which it was kept, and is not shown again; empty for any
    run_id INTEGER REFERENCES runs (id),
    created_at TEXT NOT NULL,
    PRIMARY KEY (path, sha256, keeper_sha256)
) STRICT, WITHOUT ROWID;
