"""`python -m seem` is the command `seem`."""

import sys

from seem.cli import main

sys.exit(main())
