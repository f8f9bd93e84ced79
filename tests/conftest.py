"""What all tests share."""

import os

# Before torch and OpenMP are loaded: the tests' tables are so small that a second thread only waits for the first.
os.environ.setdefault("OMP_NUM_THREADS", "1")
