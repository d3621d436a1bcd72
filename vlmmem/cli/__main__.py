"""``python -m vlmmem.cli`` is the command ``vlmmem``."""

import sys

from vlmmem.cli import main

sys.exit(main())
