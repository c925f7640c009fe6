"""A page in which a result is seen, heard, corrected and exported; see :mod:`.page`."""
