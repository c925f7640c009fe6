"""Collections: the same work on many files, exactly once, on one machine or many."""
