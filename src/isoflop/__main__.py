"""`python -m isoflop`, the same as the command `isoflop`."""

import sys

from isoflop.cli.main import main

sys.exit(main())
