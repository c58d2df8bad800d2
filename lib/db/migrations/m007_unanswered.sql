-- unanswered: a content that a model gave no answer about, and how often that was the content's fault
CREATE TABLE unanswered (
    metric TEXT NOT NULL,
    version TEXT NOT NULL,                       -- as in scores
    sha256 TEXT NOT NULL,
    runs INTEGER NOT NULL,                       -- without an answer; those with the fewest are asked about first
    tries INTEGER NOT NULL,                      -- of these runs, in how many the model answered about others
    reason TEXT NOT NULL,                        -- the last one
    updated_at TEXT NOT NULL,                    -- UTC
    PRIMARY KEY (metric, version, sha256)
) STRICT, WITHOUT ROWID;
