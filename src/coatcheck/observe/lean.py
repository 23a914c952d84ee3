"""Imports a library without an optional part of it that takes long and is not used.

Every process of a proxy starts with what it imports, and nobody is served until it has.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import cast


@contextmanager
def without(name: str) -> Iterator[None]:
    """Within, an import of *name* fails as if it were not there; unless somebody has it already."""
    if name in sys.modules:
        yield
        return
    sys.modules[name] = cast(ModuleType, None)  # so fails an import of it (docs of `import`, 5.3.1)
    try:
        yield
    finally:
        del sys.modules[name]
