"""One training run, from a spec to files on disk, in either backend, and what is read of it."""
