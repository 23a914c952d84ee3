"""What the processes ask of the kernel for themselves.

The engine hardens a worker (`engine.harden`), and knows mitmproxy, whose import takes a second and
tens of megabytes. The supervisor needs neither.
"""

from __future__ import annotations

import ctypes
import gc
import os
import resource
import signal
import sys
from pathlib import Path

_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE = 1, 4  # linux/prctl.h
_USUAL = gc.get_threshold()
_HURRIED = 100_000  # objects made before garbage is looked for


def close_to_others() -> None:
    """No core dumps, here and in every child; no debugger of the same user."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _prctl(_PR_SET_DUMPABLE, 0)


def end_with(parent: int) -> bool:
    """Have the kernel kill this process when its parent ends.

    By SIGKILL: nothing in here can hold it up, and a supervisor that is started anew finds the port
    free and no second writer in the audit files.

    Returns:
        False where *parent* has ended already.
    """
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    return os.getppid() == parent


def hurry() -> None:
    """Until `settle`, what is made is made to stay, most of it: garbage is seldom looked for among
    it, which takes a tenth of a start."""
    gc.set_threshold(_HURRIED, *_USUAL[1:])


def settle() -> None:
    """What there is by now stays: modules, for the most part, a hundred thousand objects.

    The garbage collector looks at them no more, so none of them may hold a value, but for the very
    end of a process. To go through them takes a tenth of a second, which each connection would wait
    for, and several times that when the interpreter ends.
    """
    gc.freeze()
    gc.set_threshold(*_USUAL)


def memory_bytes() -> int:
    """What this process holds in memory; 0 where the kernel does not say."""
    try:
        pages = int(Path("/proc/self/statm").read_text("ascii").split()[1])  # proc(5)
    except (OSError, ValueError, IndexError):
        return 0
    return pages * resource.getpagesize()


def how_it_ended(code: int) -> str:
    """The exit code of a child in words: the name of a signal, or ``exit code N``."""
    if code >= 0:
        return f"exit code {code}"
    try:
        return signal.Signals(-code).name
    except ValueError:
        return f"signal {-code}"


def _prctl(option: int, value: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0)
