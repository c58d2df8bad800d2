"""Step 4: rules that take rows out, and the upkeep of the database."""
