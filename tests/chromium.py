"""Where Chromium is, for the tests that look at a page and for the client that is one."""

from __future__ import annotations

import shutil

# The first draws no windows, and takes half as long for it.
NAMES = ("chromium-headless-shell", "chromium", "chromium-browser")
PROGRAM = next(filter(None, map(shutil.which, NAMES)), None)
