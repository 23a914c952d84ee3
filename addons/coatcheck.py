"""For ``mitmdump -s addons/coatcheck.py``: coatcheck inside a mitmproxy of your own.

    mitmdump -s addons/coatcheck.py --set coatcheck_home=DIR [--set coatcheck_policy=FILE]

coatcheck has to be importable there (``pip install coatcheck`` into mitmproxy's environment).
`coatcheck serve` holds every promise; this way does not (see SECURITY.md).
"""

import sys
from pathlib import Path

# mitmproxy puts this folder in front of the path, where this file hides the package of its name.
_HERE = Path(__file__).resolve().parent
sys.path[:] = [entry for entry in sys.path if Path(entry).resolve() != _HERE]

try:
    from coatcheck.app import set_up_addon
    from coatcheck.engine.script import Script
except Exception as error:  # some mitmproxies log it and go on: without any check
    sys.exit(f"coatcheck: {error}")

addons = [Script(set_up_addon)]
