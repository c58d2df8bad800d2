"""Step 7: pictures judged, put into folders, and handed over as a dataset."""
