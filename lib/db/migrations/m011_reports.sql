
-- written_reports: what step 7 wrote about a criterion, so that a run with nothing new need not compare it line by line
CREATE TABLE written_reports (
    name TEXT PRIMARY KEY,                       -- the criterion
    state TEXT NOT NULL                          -- one number for what the report was made of and for its files on disk
) STRICT, WITHOUT ROWID;
