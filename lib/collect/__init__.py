"""Step 1: from query pictures and keywords to raw answers on disk, patiently and resumably, for every engine alike."""
