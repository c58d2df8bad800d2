-- Hosts stand in one form everywhere: ASCII (punycode), in lower case, without a final dot.
UPDATE images SET domain = one_form(domain) WHERE domain GLOB '*[^a-z0-9._-]*';
UPDATE images SET registrable_domain = registrable_domain(registrable_domain)
    WHERE registrable_domain GLOB '*[^a-z0-9._-]*';
