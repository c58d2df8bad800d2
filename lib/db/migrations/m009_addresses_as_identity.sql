-- Engines use their ids again: a picture is known by the address of its original, as `lib.records.identity` has it.
-- former_keys: a picture's key before that, by which journals of step 4 know it
CREATE TABLE former_keys (
    key TEXT PRIMARY KEY,
    image_id INTEGER NOT NULL REFERENCES images (id) ON DELETE CASCADE
) STRICT, WITHOUT ROWID;
CREATE INDEX former_keys_by_image ON former_keys (image_id);

-- Where ids are known to repeat, one row may hold the addresses of many pictures: it stays that of its file.
CREATE TEMPORARY TABLE named AS
    SELECT id, key AS old, engine || ':' || address_digest(coalesce(
        CASE WHEN engine IN ('baidu', 'bing', 'naver') THEN (
            SELECT url FROM downloads JOIN image_variants ON image_variants.id = variant_id
            WHERE downloads.image_id = images.id AND image_variants.kind = 'original'
        ) END,
        (SELECT url FROM image_variants WHERE image_id = images.id AND kind = 'original' ORDER BY id LIMIT 1),
        (SELECT url FROM image_variants WHERE image_id = images.id AND kind IN ('preview', 'dup') ORDER BY id LIMIT 1),
        (SELECT url FROM image_variants WHERE image_id = images.id ORDER BY id LIMIT 1)
    )) AS new
    FROM images WHERE engine IN ('yandex', 'yandex-cloud', 'baidu', 'baidu-graph', 'naver', 'bing');
DELETE FROM named WHERE new IS NULL OR new = old;
INSERT INTO former_keys
    SELECT old, id FROM named WHERE EXISTS (SELECT 1 FROM actions WHERE table_name <> '') ORDER BY old;
UPDATE OR IGNORE images SET key = new FROM named WHERE named.id = images.id;
DROP TABLE named;

-- A broken installation is no fault of the answers that it could not read.
UPDATE responses SET ingest_state = 'pending', ingest_reason = ''
    WHERE ingest_state = 'failed' AND ingest_reason IN ('parse_error:ModuleNotFoundError', 'parse_error:ImportError');
