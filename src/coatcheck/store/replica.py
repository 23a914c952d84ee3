"""A home for a further replica, out of keys that lie elsewhere: a mounted Kubernetes Secret, say.

Replicas share the sealing key, the authority and a store in PostgreSQL, and nothing else. A mounted
Secret is no home: its files are links, belong to root and can be read by a group. So the keys are
copied into a home of the process's own, with the modes that `Home.check` wants. The private key
may be missing among them: it can be handed to the process without lying in any home (`keyfile`).

Unlike a home that `create_home` made, this one holds nothing that is not elsewhere too. So it may
be made again over itself, as when a pod starts anew, and then takes the keys over as they are now.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from coatcheck.core.ports import StoreError
from coatcheck.store import ca, files, keyfile
from coatcheck.store.files import HomeError, check_folder
from coatcheck.store.home import SAMPLE_POLICY, Home
from coatcheck.store.sealing import PublicKey

_LIMIT = 1 << 20


@dataclass(frozen=True, slots=True)
class Replica:
    """What `create_replica` made.

    Attributes:
        changed: The files that are new or have another content than before.
        has_private_key: False where the process is to be handed the key that opens values.
    """

    home: Home
    changed: tuple[Path, ...]
    has_private_key: bool


def create_replica(root: Path, source: Path) -> Replica:
    """Make the home *root* of the keys in the folder *source*, or bring it up to date with them.

    *source* holds ``sealing.pub`` and ``mitmproxy-ca.pem`` (key and certificate of the authority),
    and ``sealing.key`` unless that is handed over. All are looked at before anything is written.

    Raises:
        HomeError: a file is missing or cannot be read; *root* is a home with a store of its own.
        StoreError: a file does not hold what its name says, or they do not fit together.
    """
    home = Home(root)
    wanted = _read(home, source)
    _prepare(home)
    changed = [path for path, content in wanted.items() if _put(path, content)]
    return Replica(home, tuple(changed), home.private_key in wanted)


def _read(home: Home, source: Path) -> dict[Path, bytes]:
    """What is to lie where in *home*."""
    public_file, ca_file = source / home.public_key.name, source / home.ca_key.name
    wanted = {home.public_key: _content(public_file), home.ca_key: _content(ca_file)}
    public = PublicKey.from_bytes(wanted[home.public_key], str(public_file))
    wanted[home.ca_certificate] = ca.certificate_of(wanted[home.ca_key], str(ca_file))
    key_file = source / home.private_key.name
    if key_file.exists():
        wanted[home.private_key] = text = _content(key_file)
        ids = keyfile.ids(text, str(key_file))
        if ids is not None and public.id not in ids:
            raise StoreError(
                f"{key_file} ({', '.join(ids)}) and {public_file.name} ({public.id}) are no pair;"
                " nothing was changed",
                hint="copy both from the same home",
            )
    return wanted


def _content(path: Path) -> bytes:
    """Whose it is and through which links it is reached is up to who mounted it."""
    try:
        with path.open("rb") as file:
            content = file.read(_LIMIT + 1)
    except FileNotFoundError:
        raise HomeError(
            f"there is no file {path}; nothing was changed",
            hint="copy it from the home where `coatcheck init` was run first",
        ) from None
    except OSError as error:
        raise files.cannot("read", path, error) from error
    if len(content) > _LIMIT:
        raise HomeError(f"{path} is too large for a key", hint="copy it from the first home")
    return content


def _prepare(home: Home) -> None:
    """The folders of *home*, and a policy if there is none."""
    if not home.root.is_symlink() and not home.root.exists():
        files.create_folder(home.root)
    check_folder(home.root)
    if home.store.exists():
        raise HomeError(
            f"{home.root} has a store of its own, {home.store.name}; nothing was changed",
            hint="use it as it is, or name another folder with --home",
        )
    for folder in (home.ca, home.audit, home.run):
        if not folder.is_symlink() and not folder.exists():
            files.create_folder(folder)
        check_folder(folder, inside=True)
    if not home.policy.exists():
        files.create_file(home.policy, SAMPLE_POLICY.encode())


def _put(path: Path, content: bytes) -> bool:
    """Whether it had to be written."""
    if path.is_symlink() or path.exists():
        if files.read_file(path) == content:
            return False
        files.replace_file(path, content)
    else:
        files.create_file(path, content)
    return True
