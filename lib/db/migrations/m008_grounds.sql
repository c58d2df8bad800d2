-- unchecked_grounds: a measure from before transparent pictures were laid on a ground on which they can be seen
CREATE TABLE unchecked_grounds (
    metric TEXT NOT NULL,
    version TEXT NOT NULL,                       -- as in scores
    sha256 TEXT NOT NULL,
    PRIMARY KEY (metric, version, sha256)
) STRICT, WITHOUT ROWID;
INSERT INTO unchecked_grounds (metric, version, sha256)
    SELECT metric, version, sha256 FROM scores
    WHERE metric <> 'header' AND value IS NOT NULL AND json_extract(detail, '$.format') NOT IN ('', 'jpeg');
