"""File formats: each writes, runs and checks files of its own suffix."""
