"""``python -m autoglm_client`` is the command ``autoglm``."""

import sys

from .cli import main

sys.exit(main())
