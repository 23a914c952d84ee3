"""Private files and folders: made with their final mode, looked at again before each use.

A file is 0600 from its first byte, whatever the umask (`open` with the mode, then `fchmod`, since
a umask can only take bits away), and a name that exists already, as a link too, is never opened
for writing. What is checked is the open file, not its name, so nothing can be swapped in between.
"""

from __future__ import annotations

import errno
import fcntl
import os
import pwd
import shlex
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from coatcheck.core.ports import CoatcheckError

FOLDER_MODE = 0o700
FILE_MODE = 0o600
OTHERS = 0o077  # bits that let anybody but the owner in
OTHERS_WRITE = 0o022


class HomeError(CoatcheckError):
    """The home folder, or a file in it, is missing, exists already, or is open to others."""


def create_folder(path: Path) -> None:
    """Make the folder *path* with mode 0700; those above it as the umask says.

    Raises:
        HomeError: it exists or cannot be made.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.mkdir(mode=FOLDER_MODE)
        path.chmod(FOLDER_MODE)
    except OSError as error:
        raise cannot("create folder", path, error) from error


def create_file(path: Path, content: bytes, mode: int = FILE_MODE) -> None:
    """Write *content* to a new file and force it to the disk.

    Raises:
        HomeError: it exists (as a link too) or cannot be written; then no part of it stays.
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        descriptor = os.open(path, flags, mode)
    except OSError as error:
        raise cannot("create", path, error) from error
    try:
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(descriptor, mode)
            file.write(content)
            file.flush()
            os.fsync(descriptor)
        sync_folder(path.parent)
    except OSError as error:
        path.unlink(missing_ok=True)
        raise cannot("write", path, error) from error


def replace_file(path: Path, content: bytes, mode: int = FILE_MODE) -> None:
    """Put *content* in place of the file *path*, in one step, and force it to the disk.

    Only one process at a time may do so (`locked`).

    Raises:
        HomeError: it cannot be written; then the old file is as it was.
    """
    beside = path.with_name(path.name + ".new")
    try:
        beside.unlink(missing_ok=True)  # of one that was killed
    except OSError as error:
        raise cannot("remove", beside, error) from error
    create_file(beside, content, mode)
    try:
        beside.replace(path)
        sync_folder(path.parent)
    except OSError as error:
        raise cannot("write", path, error) from error


@contextmanager
def locked(path: Path, doing: str) -> Iterator[None]:
    """Hold the lock file *path*; it ends with the process, however that ends.

    Raises:
        HomeError: another process holds it, or it cannot be made.
    """
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        descriptor = os.open(path, flags, FILE_MODE)
    except OSError as error:
        raise cannot("open", path, error) from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise HomeError(
                f"another process is {doing}; nothing was changed", hint="wait for it to end"
            ) from None
        yield
    finally:
        os.close(descriptor)


def sync_folder(path: Path) -> None:
    """Force the entries of a folder to the disk: without it, a power cut can undo a new name."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read_file(path: Path, *, forbidden: int = OTHERS, limit: int = 1 << 20) -> bytes:
    """The content of a file that is ours.

    Args:
        forbidden: Mode bits it must not have.
        limit: Bytes; a larger file is refused.

    Raises:
        HomeError: missing, no plain file, a link, not ours, open to others, or too large.
    """
    with os.fdopen(_open_checked(path, forbidden), "rb") as file:
        content = file.read(limit + 1)
    if len(content) > limit:
        raise HomeError(
            f"{path} is larger than {limit} bytes", hint="put back the file that was there before"
        )
    return content


def check_file(path: Path, *, forbidden: int = OTHERS) -> None:
    """Check what `read_file` checks, reading nothing.

    Raises:
        HomeError: as for `read_file`.
    """
    os.close(_open_checked(path, forbidden))


def check_folder(path: Path, *, inside: bool = False) -> None:
    """Check that the folder *path* is a real one, ours, and closed to others.

    Args:
        inside: It is a part of a home, which another ``--home`` would not mend.

    Raises:
        HomeError: it is not; the hint is the command that mends it, where one does.
    """
    try:
        status = path.lstat()
    except FileNotFoundError:
        missing = f"run: coatcheck init --home {quoted(path)}"
        if inside:
            missing = "restore it from a backup; for a new home run: coatcheck init"
        raise HomeError(f"there is no folder {path}", hint=missing) from None
    except OSError as error:
        raise cannot("look at", path, error) from error
    if stat.S_ISLNK(status.st_mode):
        raise _link(path)
    if not stat.S_ISDIR(status.st_mode):
        hint = "move it away" if inside else "name the folder with --home"
        raise HomeError(f"{path} is no folder", hint=hint)
    _check_owner_and_mode(path, status, OTHERS)


def cannot(action: str, path: Path, error: OSError) -> HomeError:
    """A `HomeError` for a failed system call, with the next step for the common causes."""
    hints = {
        errno.EEXIST: "it is there already and is never overwritten; move it away first",
        errno.EACCES: f"run as a user who may write to {path.parent}, or name another --home",
        errno.EPERM: f"run as a user who may write to {path.parent}, or name another --home",
        errno.EROFS: "the file system is read-only; name another --home",
        errno.ENOSPC: "the disk is full; make room and run it again",
        errno.EDQUOT: "the disk quota is used up; make room and run it again",
        errno.ENOTDIR: "a part of the path is a file; name another --home",
    }
    number = error.errno or 0
    if number == errno.EEXIST and error.filename not in (None, str(path)):
        number = errno.ENOTDIR  # `mkdir(parents=True)` came upon a file
    hint = hints.get(number, "mend that and run it again")
    return HomeError(f"cannot {action} {path}: {error.strerror}", hint=hint)


def quoted(path: Path) -> str:
    """*path* for pasting into a shell."""
    return shlex.quote(str(path))


def _open_checked(path: Path, forbidden: int) -> int:
    # O_NONBLOCK: a FIFO planted there must not make us wait.
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        descriptor = os.open(path, flags)
    except FileNotFoundError:
        raise HomeError(
            f"there is no file {path}",
            hint="restore it from a backup; for a new home run: coatcheck init",
        ) from None
    except OSError as error:
        if error.errno == errno.ELOOP or path.is_symlink():
            raise _link(path) from None
        hint = f"make it readable for its owner: chmod 600 {quoted(path)}"
        raise HomeError(f"cannot read {path}: {error.strerror}", hint=hint) from error
    try:
        status = os.fstat(descriptor)
        _check_plain(path, status)
        _check_owner_and_mode(path, status, forbidden)
    except HomeError:
        os.close(descriptor)
        raise
    return descriptor


def _check_plain(path: Path, status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        kind = "a folder" if stat.S_ISDIR(status.st_mode) else "no plain file"
        raise HomeError(f"{path} is {kind}", hint="put back the file that was there before")


def _check_owner_and_mode(path: Path, status: os.stat_result, forbidden: int) -> None:
    if status.st_uid != os.geteuid():
        owner, me = _user(status.st_uid), _user(os.geteuid())
        raise HomeError(
            f"{path} belongs to {owner}, this program runs as {me}",
            hint=f"run as {owner}, or: sudo chown {me} {quoted(path)}",
        )
    mode = stat.S_IMODE(status.st_mode)
    if mode & forbidden:
        who = "others" if mode & forbidden & 0o007 else "its group"
        verb = "write" if mode & forbidden & OTHERS_WRITE else "open"
        raise HomeError(
            f"{path} has mode {mode:04o}: {who} may {verb} it",
            hint=f"chmod {mode & ~OTHERS & 0o700 | _least(status):o} {quoted(path)}",
        )


def _least(status: os.stat_result) -> int:
    return FOLDER_MODE if stat.S_ISDIR(status.st_mode) else FILE_MODE


def _user(number: int) -> str:
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return f"user {number}"


def _link(path: Path) -> HomeError:
    return HomeError(
        f"{path} is a symbolic link, and whoever can change the link decides what is read",
        hint="name the place that it points to instead",
    )
