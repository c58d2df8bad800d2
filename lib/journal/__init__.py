"""Everything that can be undone: files moved, rows taken out."""
