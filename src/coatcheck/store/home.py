"""The home folder: what lies where, how it is made, and what is checked before it is used.

Everything that must survive lies here, closed to everybody but its owner: the sealing key, the
authority's key, the store, the audit log. A home is made once and never repaired by the program:
a missing key that is silently made anew would cut off every value that was sealed to the old one.
"""

from __future__ import annotations

import datetime
import hashlib
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from coatcheck.store import files, keyfile
from coatcheck.store.files import HomeError, check_file, check_folder
from coatcheck.store.sealing import KeyRing, PublicKey, generate_key

__all__ = [
    "SAMPLE_POLICY",
    "Created",
    "Home",
    "HomeError",
    "create_home",
    "token_hash",
]

OWNER_TOKEN_PREFIX = "ct_"  # noqa: S105 for secret scanners, and to tell it from a client's token

SAMPLE_POLICY = """\
# Who may send which secret where. coatcheck reads this again as soon as it is saved.
# Check it with: coatcheck policy check FILE
version: 1

clients:
  # Programs on this machine, without a token. For another machine or a container run
  # `coatcheck client token NAME` and put the line that it prints here.
  local:
    networks: ["127.0.0.1/32", "::1/128"]

grants:
  # Every secret, still only to its own allowed domains (coatcheck secret set NAME --domain ...).
  # Narrow it with names or with hosts, methods, paths, in.
  - secrets: ["*"]
    clients: ["local"]
"""


@dataclass(frozen=True, slots=True)
class Home:
    """The places in a home folder. ``ca`` is laid out as mitmproxy reads it (its ``confdir``)."""

    root: Path

    @property
    def policy(self) -> Path:
        return self.root / "policy.yaml"

    @property
    def config(self) -> Path:
        return self.root / "coatcheck.yaml"

    @property
    def store(self) -> Path:
        return self.root / "store.db"

    @property
    def seen(self) -> Path:
        """The newest revision of the store that was seen (`store.seen`)."""
        return self.root / "store.seen"

    @property
    def private_key(self) -> Path:
        return self.root / "sealing.key"

    @property
    def public_key(self) -> Path:
        return self.root / "sealing.pub"

    @property
    def ca(self) -> Path:
        return self.root / "ca"

    @property
    def ca_key(self) -> Path:
        """The authority's key and certificate, PEM."""
        return self.ca / "mitmproxy-ca.pem"

    @property
    def ca_certificate(self) -> Path:
        """What clients are told to trust, PEM."""
        return self.ca / "mitmproxy-ca-cert.pem"

    @property
    def audit(self) -> Path:
        return self.root / "audit"

    @property
    def audit_key(self) -> Path:
        """The private key that signs the audit log, PEM (`store.auditkey`)."""
        return self.root / "audit.key"

    @property
    def audit_public(self) -> Path:
        """Its public half, PEM: what `audit verify` needs."""
        return self.root / "audit.pub"

    @property
    def audit_heads(self) -> Path:
        """The newest signed head of each audit log, apart from the logs."""
        return self.root / "audit.heads"

    @property
    def run(self) -> Path:
        """For what does not outlive a run: process ids, sockets."""
        return self.root / "run"

    @property
    def canary_key(self) -> Path:
        """What workers share with `coatcheck doctor` (`store.canarykey`)."""
        return self.run / "canary.key"

    def check(self) -> None:
        """Look at the folders and at the files that hold keys.

        Raises:
            HomeError: missing, a link, not ours, or open to others; the hint is the command that
                mends it. A missing private key is no error: an admin process has none.
        """
        check_folder(self.root)
        check_folder(self.ca, inside=True)
        for folder in (self.audit, self.audit_heads, self.run):
            if folder.is_symlink() or folder.exists():
                check_folder(folder, inside=True)
        for file in (self.private_key, self.ca_key, self.audit_key):
            if file.is_symlink() or file.exists():
                check_file(file)

    def read_public_key(self) -> PublicKey:
        """The key that seals.

        Raises:
            HomeError: there is no home, or the file is missing or can be written by others.
            StoreError: it is no such key.
        """
        check_folder(self.root)
        text = files.read_file(self.public_key, forbidden=files.OTHERS_WRITE)
        return PublicKey.from_bytes(text, str(self.public_key))

    def read_private_key(self) -> KeyRing:
        """The key that opens, or two during a rotation; for proxy workers.

        Raises:
            HomeError: there is no home, or the file is missing or open to others.
            StoreError: it is no such key, or a passphrase is missing or wrong.
        """
        check_folder(self.root)
        read = keyfile.read(self.private_key)
        # Only a plain file is read again: a passphrase is not kept, and a pipe is empty by then.
        plain = read.path is not None and read.passphrase is None
        return KeyRing(read.keys, (lambda: keyfile.read(self.private_key).keys) if plain else None)

    def has_private_key(self) -> bool:
        """Whether there is one to read: in its file, or handed over."""
        return keyfile.is_there(self.private_key)

    @contextmanager
    def changing_keys(self) -> Iterator[None]:
        """Held by whoever changes the key files.

        Raises:
            HomeError: there is no home, or another process holds it.
        """
        check_folder(self.root)
        if not self.run.exists():
            files.create_folder(self.run)
        with files.locked(self.run / "keys.lock", "changing the keys"):
            yield


@dataclass(frozen=True, slots=True)
class Created:
    """What `create_home` made.

    Attributes:
        owner_token: The first token of the management API; only its hash is kept.
        policy_written: False where a policy lay there already and was left alone.
    """

    home: Home
    owner_token: str
    policy_written: bool

    def __repr__(self) -> str:
        return f"<created {self.home.root}>"


def create_home(root: Path, *, now: float) -> Created:
    """Make a home: sealing key, authority, store, sample policy, the first owner token.

    An existing folder is taken if it is ours and holds nothing but, perhaps, a policy or settings
    that somebody has put there before. Whatever fails, what was made so far is removed.

    Args:
        now: Seconds since the epoch.

    Raises:
        HomeError: there is a home already (nothing is touched), or it cannot be made.
        StoreError: the store cannot be written.
    """
    home = Home(root)
    made: list[Path] = []  # two inits at once: each removes only what is its own
    try:
        if _check_vacant(home):
            files.create_folder(root)
            made.append(root)
        else:
            root.chmod(files.FOLDER_MODE)
        return _fill(home, now, made)
    except BaseException:
        for path in reversed(made):
            _remove(path)
        raise


def token_hash(token: str) -> str:
    """The SHA-256 (hex) of a token: what a policy file or the store keeps of it.

    A plain hash will do: a token has 256 random bits, so there is nothing to guess.
    """
    return hashlib.sha256(token.encode()).hexdigest()


def _fill(home: Home, now: float, made: list[Path]) -> Created:
    # Here, so that reading a home does not pay for a database toolkit.
    from coatcheck.store import auditkey, ca
    from coatcheck.store.sql import SqlStore

    def write(path: Path, content: bytes) -> None:
        files.create_file(path, content)
        made.append(path)

    # First the key: of two inits at once the other one fails here, and has made nothing yet.
    key = generate_key()
    write(home.private_key, key.to_bytes())
    write(home.public_key, key.public.to_bytes())
    audit_key, audit_public = auditkey.generate()
    write(home.audit_key, audit_key)
    write(home.audit_public, audit_public)
    for folder in (home.ca, home.audit, home.audit_heads, home.run):
        if not folder.exists():
            files.create_folder(folder)
            made.append(folder)
    ca_key, certificate = ca.make(datetime.datetime.fromtimestamp(now, datetime.UTC))
    write(home.ca_key, ca_key + certificate)
    write(home.ca_certificate, certificate)
    policy_written = not home.policy.exists()
    if policy_written:
        write(home.policy, SAMPLE_POLICY.encode())
    token = OWNER_TOKEN_PREFIX + secrets.token_urlsafe(32)
    write(home.store, b"")
    SqlStore.create_tables(home.store, public=key.public, owner=token_hash(token), now=now)
    return Created(home, token, policy_written)


def _ours(home: Home) -> list[Path]:
    """What init makes and nobody else."""
    keys = [home.private_key, home.public_key, home.audit_key, home.audit_public]
    return [home.store, *keys, home.ca]


def _check_vacant(home: Home) -> bool:
    """Whether the root has yet to be made; raise HomeError where it cannot become a home."""
    root = home.root
    if not root.is_symlink() and not root.exists():
        return True
    if root.is_symlink() or not root.is_dir():
        check_folder(root)
    try:
        found = sorted(entry.name for entry in root.iterdir())
    except OSError as error:
        raise files.cannot("read folder", root, error) from error
    ours = [path.name for path in _ours(home) if path.name in found]
    if home.store.name in ours:
        raise HomeError(
            f"{root} is a coatcheck home already; nothing was changed",
            hint="use it as it is, or name another one with --home",
        )
    if ours:
        raise HomeError(
            f"{root} holds {', '.join(ours)} but no {home.store.name}; nothing was changed",
            hint=f"restore {home.store.name} from a backup; if it never existed, since an earlier"
            f" init was cut off, remove {root} and run init again",
        )
    known = {home.policy.name, home.config.name, home.audit.name, home.audit_heads.name}
    known |= {home.run.name, "lost+found"}
    foreign = [name for name in found if name not in known]
    if foreign:
        raise HomeError(
            f"{root} is not empty: it holds {foreign[0]!r}; nothing was changed",
            hint="name a new folder with --home",
        )
    return False


def _remove(path: Path) -> None:
    if path.is_dir():
        with suppress(OSError):  # not empty: somebody else is at work in it
            path.rmdir()
        return
    for beside in ("", "-wal", "-shm", "-journal"):
        path.with_name(path.name + beside).unlink(missing_ok=True)
