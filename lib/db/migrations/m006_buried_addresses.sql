-- buried_addresses: an address that brought a content which was taken away as a repeat
CREATE TABLE buried_addresses (
    url TEXT PRIMARY KEY,
    sha256 TEXT NOT NULL REFERENCES tombstones (sha256) ON DELETE CASCADE
) STRICT, WITHOUT ROWID;
CREATE INDEX buried_addresses_by_sha256 ON buried_addresses (sha256);
INSERT OR IGNORE INTO buried_addresses
    SELECT url, tombstones.sha256 FROM tombstones JOIN downloads ON downloads.sha256 = tombstones.sha256
    JOIN image_variants ON image_variants.id = downloads.variant_id;
