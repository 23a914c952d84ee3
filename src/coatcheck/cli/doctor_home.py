"""What `coatcheck doctor` looks at in a home: files, keys, CA, store, policy.

Values are unsealed, to know that they can be, and their size is looked at; nothing else of them.
Nothing is changed.
"""

from __future__ import annotations

import datetime
import ipaddress
import os
import shutil
import stat
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from coatcheck import policyfile, policywarnings
from coatcheck.cli.findings import Finding, counted, fail, failed_by, listed, ok, warn
from coatcheck.core.destination import Destination, DomainPattern
from coatcheck.core.policy import Client, Grant, Policy, name_matches
from coatcheck.core.ports import CoatcheckError, StoreError
from coatcheck.core.secret import SAFE_LENGTH, Secret
from coatcheck.observe import auditlog
from coatcheck.settings import Settings
from coatcheck.store import files, seen
from coatcheck.store.ca import CLOCK_SKEW
from coatcheck.store.home import Home
from coatcheck.store.sql import SqlStore
from coatcheck.store.view import SqlView

UNUSED = datetime.timedelta(days=90)
CA_SOON = datetime.timedelta(days=30)
ROOM = 100 * 1024 * 1024  # bytes free, below which the audit log may soon be unable to grow
LOOPBACK = (ipaddress.ip_network("127.0.0.0/8"), ipaddress.ip_network("::1/128"))


def check_modes(home: Home) -> Iterator[Finding]:
    """Everything that must be closed to others. Missing files are told by who needs them."""
    folders = [home.root, home.ca, home.audit, home.audit_heads, home.run]
    private = [
        home.private_key,
        home.ca_key,
        home.audit_key,
        home.canary_key,
        *sorted(home.audit.glob(auditlog.PATTERN)),
    ]
    public = [home.public_key, home.ca_certificate]
    seen = 0
    for paths, look in (
        (folders, files.check_folder),
        (private, files.check_file),
        (public, lambda path: files.check_file(path, forbidden=files.OTHERS_WRITE)),
    ):
        for path in paths:
            if not os.path.lexists(path):
                continue
            try:
                look(path)
                seen += 1
            except files.HomeError as error:
                yield failed_by("modes", error)
    yield ok("modes", f"{seen} folders and files are ours and closed to others")


def check_keys(home: Home, *, admin_only: bool) -> Iterator[Finding]:
    """The sealing keys are there and belong together."""
    try:
        public = home.read_public_key()
        if admin_only and not home.has_private_key():
            yield ok("keys", f"public key {public.id}; no private key, as it should be here")
            return
        private = home.read_private_key()
    except CoatcheckError as error:
        yield failed_by("keys", error)
        return
    if len(private.ids) > 1 and public.id in private:
        yield warn(
            "keys",
            f"a rotation is not finished: there are the keys {' and '.join(private.ids)}",
            "go on with it: coatcheck keys rotate",
        )
        return
    if private.id == public.id:
        yield ok("keys", f"sealing key {public.id}, a pair")
        return
    yield fail(
        "keys",
        f"sealing.key ({private.id}) and sealing.pub ({public.id}) are no pair",
        "restore both from a backup of the same home",
    )


def check_ca(home: Home, now: datetime.datetime) -> Iterator[Finding]:
    """The authority that clients trust: readable, one and the same in both files, in date."""
    restore = f"restore {home.ca} from a backup"
    try:
        pem = files.read_file(home.ca_certificate, forbidden=files.OTHERS_WRITE)
        both = files.read_file(home.ca_key)
    except files.HomeError as error:
        yield failed_by("ca", error)
        return
    try:
        certificate = x509.load_pem_x509_certificate(pem)
        used = x509.load_pem_x509_certificate(both)
        key = load_pem_private_key(both, None)
    except (ValueError, TypeError):
        yield fail("ca", f"{home.ca} holds files that are no certificate or no key", restore)
        return
    if certificate != used or key.public_key() != used.public_key():
        yield fail(
            "ca",
            f"{home.ca_certificate.name} and {home.ca_key.name} are of two authorities:"
            " clients trust one and are shown the other",
            restore,
        )
        return
    yield _ca_dates(certificate, now)


def check_store(home: Home, settings: Settings) -> tuple[list[Finding], Collection[Secret] | None]:
    """The store opens, and so does every value in it.

    Returns:
        The findings, and the secrets; None where the store cannot be read.
    """
    try:
        public = home.read_public_key()
        private = home.read_private_key() if home.has_private_key() else None
        store = SqlStore.open(
            settings.store, public=public, private=private, grace_s=settings.limits.retired_grace_s
        )
    except CoatcheckError as error:
        return [failed_by("store", error)], None
    try:
        older = seen.look(home.seen, store.store_id, store.revision(), keep=False).told()
        back = [warn("store", older, seen.ACCEPT)] if older else []
        if private is None:
            secrets: Collection[Secret] = store.secrets()
            what = f"{counted(secrets, 'secret')}; values cannot be opened here"
            return [ok("store", what), *back], secrets
        view = store.view()
        return [*_check_values(view), *back], view.secrets()
    except CoatcheckError as error:
        return [failed_by("store", error)], None
    finally:
        store.close()


def check_secrets(secrets: Iterable[Secret]) -> Iterator[Finding]:
    """Secrets that nobody can use."""
    nowhere = [secret.name for secret in secrets if not secret.domains]
    if nowhere:
        yield warn(
            "secrets",
            f"allowed nowhere: {listed(nowhere)}",
            "set it again with the hosts that may get it: coatcheck secret set NAME --domain HOST",
        )


def check_policy(path: Path) -> tuple[list[Finding], Policy | None]:
    """The policy file loads; what it says that is wider than most people mean.

    Returns:
        The findings, and the policy; None where it cannot be used.
    """
    try:
        policy = policyfile.read(path)
    except CoatcheckError as error:
        return [failed_by("policy", error)], None
    size = f"{counted(policy.clients, 'client')}, {counted(policy.grants, 'grant')}"
    found = [ok("policy", f"{size}: {path}")]
    mode = stat.S_IMODE(path.stat().st_mode)
    if mode & files.OTHERS_WRITE:
        found.append(
            warn(
                "policy",
                f"{path} has mode {mode:04o}: others may decide who gets which secret",
                f"chmod go-w {files.quoted(path)}",
            )
        )
    for text in policywarnings.warnings(policy):
        what, _, remedy = text.partition("; ")
        found.append(warn("policy", what, remedy))
    return found, policy


def check_grants(policy: Policy, secrets: Collection[Secret]) -> Iterator[Finding]:
    """Grants that can never allow anything."""
    for grant in policy.grants:
        where = f"{policy.source}:{grant.line}"
        for pattern in grant.secrets:
            named = [s for s in secrets if name_matches(pattern, s.name)]
            if not named and pattern.strip("*"):
                yield warn(
                    "grants",
                    f"{where}: there is no secret '{pattern}'",
                    "correct the name, or make it: coatcheck secret set NAME --domain HOST",
                )
        apart = [s.name for s in secrets if grant.names(s.name) and _never_meet(grant, s)]
        if apart:
            yield warn(
                "grants",
                f"{where}: its hosts are none of the allowed domains of {listed(apart)}",
                "both must hold: correct hosts:, or set the secret again with --domain",
            )


def check_reach(policy: Policy, secrets: Collection[Secret]) -> Iterator[Finding]:
    """Grants without hosts, by which a secret goes to its own domains, and those can publish.

    Where a grant names the hosts, the policy's own warnings say so.
    """
    for grant in policy.grants:
        if grant.hosts is not None or not policywarnings.fits_publishing(grant):
            continue
        for secret in (s for s in secrets if grant.names(s.name)):
            # One that may go anywhere would name them all.
            named = tuple(pattern for pattern in secret.domains if not pattern.any)
            if hosts := policywarnings.publishers(named):
                yield warn(
                    "grants",
                    f"{policy.source}:{grant.line}: {listed(hosts)}, where {secret.name} may go,"
                    " can publish what a body, query or path holds",
                    "add in: [header:authorization], or paths:; no scrubbing takes that back",
                )


def check_unused(
    policy: Policy, secrets: Collection[Secret], now: datetime.datetime
) -> Iterator[Finding]:
    """Secrets that nobody can use, or that nobody does: what is not there cannot leak."""
    idle = [s.name for s in secrets if not any(grant.names(s.name) for grant in policy.grants)]
    if idle:
        yield warn(
            "secrets",
            f"no grant names {listed(idle)}",
            f"add a grant to {policy.source}, or remove it: coatcheck secret delete NAME",
        )
    before = (now - UNUSED).timestamp()
    old = [
        s.name
        for s in secrets
        if s.name not in idle and s.updated_at and max(s.last_used_at or 0, s.updated_at) < before
    ]
    if old:
        yield warn(
            "secrets",
            f"not used for {UNUSED.days} days: {listed(old)}",
            "remove what nobody needs: coatcheck secret delete NAME",
        )


def check_clients(policy: Policy, listen: Collection[str]) -> Iterator[Finding]:
    """Clients that can never be told, or never get a secret.

    Args:
        listen: The hosts that the proxy listens on.
    """
    granted = {name for grant in policy.grants for name in grant.clients}
    idle = [client.name for client in policy.clients if client.name not in granted]
    if idle:
        yield warn(
            "clients",
            f"no grant names {listed(idle)}",
            f"add the client to clients: of a grant in {policy.source}, or remove it",
        )
    local = bool(listen) and all(map(_is_loopback, listen))
    far = [client.name for client in policy.clients if local and _comes_from_afar(client)]
    if far:
        yield warn(
            "clients",
            f"{listed(far)} can never connect: the proxy listens on this machine alone,"
            " and networks: holds no address of it",
            "listen on an address that they reach (listen: HOST:PORT), or correct networks:",
        )
    if not policy.clients:
        yield warn(
            "clients",
            "the policy knows no client, so everyone is refused",
            "add one under clients: (coatcheck client token NAME)",
        )


def check_audit(home: Home) -> Iterator[Finding]:
    """Without a record nothing is sent, so the log must be able to grow."""
    if not home.audit.is_dir():
        yield ok("audit", "no log yet; the proxy makes it")
        return
    if not os.access(home.audit, os.W_OK | os.X_OK):
        yield fail(
            "audit",
            f"{home.audit} cannot be written, so every request would be refused",
            f"chmod 700 {files.quoted(home.audit)}",
        )
        return
    free = shutil.disk_usage(home.audit).free
    if free < ROOM:
        yield warn(
            "audit",
            f"{free // 1024**2} MiB are free for the audit log; full, every request is refused",
            f"make room on the disk of {home.audit}",
        )
        return
    yield ok("audit", str(home.audit))


def _check_values(view: SqlView) -> Iterator[Finding]:
    broken: list[str] = []
    short: list[str] = []
    first: StoreError | None = None
    former = view.former()
    retired = len(former)
    current = view.secrets()
    for secret in (*current, *former):
        try:
            if view.open(secret).size < SAFE_LENGTH and secret in current:
                short.append(secret.name)
        except StoreError as error:
            broken.append(secret.name)
            first = first or error
    if first is not None:
        yield fail("store", f"cannot be opened: {listed(broken)}; {first.problem}", first.hint)
    else:
        more = f", and {retired} replaced ones" if retired else ""
        yield ok("store", f"{counted(view.secrets(), 'secret')}; every value opens{more}")
    if short:
        yield warn(
            "secrets",
            f"shorter than {SAFE_LENGTH} bytes, so not scrubbed safely: {listed(short)}",
            "replace it by a longer one: coatcheck secret set NAME",
        )


def _ca_dates(certificate: x509.Certificate, now: datetime.datetime) -> Finding:
    begin, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    renew = (
        "make a new one: coatcheck init --home NEW, put NEW/ca in place of ca, restart,"
        " and give clients what `coatcheck ca export` prints"
    )
    if now < begin:
        return fail("ca", f"valid only from {begin:%Y-%m-%d %H:%M} UTC", "set this machine's clock")
    if now > end:
        return fail("ca", f"expired on {end:%Y-%m-%d}: every client refuses it", renew)
    left = (end - now).days
    if end - now < CA_SOON:
        return warn("ca", f"expires in {left} days, on {end:%Y-%m-%d}", renew)
    made = begin + CLOCK_SKEW
    return ok("ca", f"made on {made:%Y-%m-%d}, valid until {end:%Y-%m-%d} ({left} days)")


def _never_meet(grant: Grant, secret: Secret) -> bool:
    """Whether no destination is in both the grant's hosts and the secret's domains."""
    if grant.hosts is None or not secret.domains:
        return False  # the second is a finding of its own
    return not any(_overlap(host, domain) for host in grant.hosts for domain in secret.domains)


def _overlap(one: DomainPattern, other: DomainPattern) -> bool:
    # The narrower of two patterns that meet is inside the wider one, so an example of it tells.
    return any(
        one.matches(destination) and other.matches(destination)
        for pattern in (one, other)
        for destination in _examples(pattern, {one.port, other.port})
    )


def _examples(pattern: DomainPattern, ports: Iterable[int | None]) -> Iterator[Destination]:
    host = "any.example" if pattern.any else pattern.host
    host = f"any.{host}" if pattern.wildcard else host
    for port in ports:
        for scheme, default in (("https", 443), ("http", 80)):
            yield Destination(scheme, host, port or default)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _comes_from_afar(client: Client) -> bool:
    return bool(client.networks) and not any(
        own.version == network.version and own.overlaps(network)
        for own in LOOPBACK
        for network in client.networks
    )
