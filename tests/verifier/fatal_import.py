"""A module whose import takes the process with it, as a broken native library does."""

import os

os._exit(9)
