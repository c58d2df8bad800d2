-- An index that only step 4 used: the addresses of a picture stand together in the one that keeps them unique.
DROP INDEX image_variants_by_url;

-- Pending downloads have neither a file nor an address that won: they need no place in these.
DROP INDEX downloads_by_sha256;
CREATE INDEX downloads_by_sha256 ON downloads (sha256) WHERE sha256 IS NOT NULL;
DROP INDEX downloads_by_variant;
CREATE INDEX downloads_by_variant ON downloads (variant_id) WHERE variant_id IS NOT NULL;
