"""`python -m attfm` is the command `attfm`."""

import sys

from attfm.cli import main

if __name__ == "__main__":
    sys.exit(main())
