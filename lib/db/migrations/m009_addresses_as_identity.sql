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

-- Pictures in journals of step 4 come back under the key that they would have now, with what left with them.
CREATE TEMPORARY TABLE archived_addresses AS
    SELECT run_id, payload ->> 'image_id' AS owner, payload ->> 'kind' AS kind, payload ->> 'url' AS url,
        payload ->> 'id' AS id
    FROM actions WHERE table_name = 'image_variants' AND kind = 'remove_row' AND state = 'done'
        AND json_type(payload, '$.image_id') = 'text';
CREATE INDEX archived_addresses_by_owner ON archived_addresses (run_id, owner);
CREATE TEMPORARY TABLE archived AS
    SELECT id, run_id, old, column_name, engine || ':' || address_digest((
        SELECT url FROM archived_addresses AS found WHERE found.run_id = left_by.run_id AND found.owner = left_by.old
        ORDER BY CASE kind WHEN 'original' THEN 0 WHEN 'preview' THEN 1 WHEN 'dup' THEN 1 ELSE 2 END, found.id LIMIT 1
    )) AS new
    FROM (
        SELECT id, run_id, payload ->> 'engine' AS engine, coalesce(payload ->> 'key', payload ->> 'id') AS old,
            iif(json_type(payload, '$.key') IS NULL, '$.id', '$.key') AS column_name
        FROM actions WHERE table_name = 'images' AND kind = 'remove_row' AND state = 'done'
    ) AS left_by WHERE engine IN ('yandex', 'yandex-cloud', 'baidu', 'baidu-graph', 'naver', 'bing');
DELETE FROM archived WHERE new IS NULL OR new = old;
CREATE INDEX archived_by_key ON archived (run_id, old);
UPDATE actions SET payload = json_set(payload, column_name, new) FROM archived WHERE archived.id = actions.id;
UPDATE actions SET payload = json_set(payload, '$.image_id', new) FROM archived
    WHERE archived.run_id = actions.run_id AND archived.old = actions.payload ->> 'image_id'
        AND table_name IN ('image_variants', 'results', 'downloads', 'superseded') AND actions.state = 'done';
DROP TABLE archived;
DROP TABLE archived_addresses;

-- A broken installation is no fault of the answers that it could not read.
UPDATE responses SET ingest_state = 'pending', ingest_reason = ''
    WHERE ingest_state = 'failed' AND ingest_reason IN ('parse_error:ModuleNotFoundError', 'parse_error:ImportError');
