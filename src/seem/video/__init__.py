"""Video files: reading and writing them, and the command `seem video`. Needs the package `av` (PyAV)."""
