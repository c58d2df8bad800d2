"""Which pictures and answers lie where, and what they are called."""
