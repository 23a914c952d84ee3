"""``python -m tests.breaks``, from the top of the repository."""

import sys

from tests.breaks.runner import main

sys.exit(main(sys.argv[1:]))
