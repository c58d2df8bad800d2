"""One bounded stream of work: here, in threads, in processes, or on Ray."""
