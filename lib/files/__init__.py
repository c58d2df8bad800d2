"""Pictures and answers on disk: where they lie, and what they are called."""
