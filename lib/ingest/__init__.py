"""Step 2: raw answers, lists and folders become rows."""
