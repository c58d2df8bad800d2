"""Step 5: rows out of the database, addresses asked, whole files and rows back."""
