-- dataset_pictures: the contents that an exported dataset was made with, so that an opt-out finds the datasets that hold one
CREATE TABLE dataset_pictures (
    sha256 TEXT NOT NULL,                        -- of the original, also where it was converted
    dataset_id INTEGER NOT NULL REFERENCES actions (id) ON DELETE CASCADE,  -- the journal's entry of its building
    PRIMARY KEY (sha256, dataset_id)
) STRICT, WITHOUT ROWID;
CREATE INDEX dataset_pictures_by_dataset ON dataset_pictures (dataset_id);
CREATE INDEX actions_of_datasets ON actions (target) WHERE reason = 'building';
-- Of older exports the journal knows the pictures that were written as files of their own.
INSERT OR IGNORE INTO dataset_pictures (sha256, dataset_id)
    SELECT written.sha256, begun.id FROM actions AS begun
    JOIN actions AS written ON written.run_id = begun.run_id AND written.id > begun.id
    WHERE begun.reason = 'building' AND written.kind = 'write' AND written.state = 'done' AND written.sha256 <> ''
    AND (written.sha256 IN (SELECT sha256 FROM files) OR written.sha256 IN (SELECT sha256 FROM contents));
