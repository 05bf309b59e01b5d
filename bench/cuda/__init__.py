"""The bench on a GPU: everything proven and raced in one run, and kept as a record."""
