"""Step 3: what was found, domain by domain."""
