"""What can be done with secrets: list, make, change, delete, look back. A value goes in, never out.

Each method asks for the role that it takes, so the API and the page hold the same rights. What is
looked at before a change (is it still the version that was read, who uses it) is looked at inside
the transaction that makes it.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from coatcheck import policyuse
from coatcheck.admin.actions import Actions
from coatcheck.admin.declared import Declarations, Names, is_declared
from coatcheck.admin.problems import ApiProblem, Code
from coatcheck.admin.roles import Actor, Role
from coatcheck.admin.secret_input import (
    Value,
    read_description,
    read_domains,
    read_name,
    read_value,
    refuse_shown,
)
from coatcheck.core import weakness
from coatcheck.core.destination import DomainPattern
from coatcheck.core.secret import SAFE_LENGTH, Secret
from coatcheck.store.model import (
    Check,
    NameTaken,
    UnknownSecret,
    VersionInfo,
)
from coatcheck.store.sql import SqlStore

ANY = "*"  # as a version: whichever is there

SORTS: dict[str, Callable[[Secret], object]] = {
    "name": lambda secret: (secret.name.casefold(), secret.name),
    "version": lambda secret: secret.version,
    "created_at": lambda secret: secret.created_at,
    "updated_at": lambda secret: secret.updated_at,
    "last_used_at": lambda secret: secret.last_used_at or 0.0,
    "uses": lambda secret: secret.uses,
}
MAX_PAGE = 500


@dataclass(frozen=True, slots=True)
class Page:
    """A part of a list; *total* counts the whole."""

    items: Sequence[Secret]
    total: int
    next_offset: int | None


@dataclass(frozen=True, slots=True)
class Changed:
    """A secret after a change, and what is worth a warning about it."""

    secret: Secret
    warnings: Sequence[str] = ()


def etag(secret: Secret) -> str:
    """What stands for one state of a secret: of all that a person can change. No quotes."""
    state = (secret.id, secret.version, secret.updated_at, secret.name, secret.description)
    return hashlib.sha256(repr(state).encode("utf-8", "replace")).hexdigest()[:24]


class SecretService:
    """The store, as those who manage it may use it."""

    def __init__(
        self,
        store: SqlStore,
        policy: Path,
        actions: Actions,
        clock: Callable[[], float] = time.time,
        declarations: Declarations | None = None,
    ) -> None:
        """*declarations*: of secrets whose values come from elsewhere."""
        self._store = store
        self._names = Names(store, declarations or Declarations(None))
        self._policy = policy
        self._actions = actions
        self._clock = clock

    # --- reading -----------------------------------------------------------------------------

    def list(
        self,
        actor: Actor,
        *,
        query: str = "",
        domain: str = "",
        sort: str = "name",
        descending: bool = False,
        offset: int = 0,
        limit: int = 100,
    ) -> Page:
        """A page of the secrets.

        Args:
            query: A part of name, description or allowed domains, in whatever letter case.
            domain: An allowed domain, exactly as it is written in the list.
            sort: One of `SORTS`.
        """
        actor.require(Role.VIEWER)
        wanted = query.casefold()
        found = [
            secret
            for secret in self._names.all()
            if (not wanted or _holds(secret, wanted))
            and (not domain or domain.lower() in map(str, secret.domains))
        ]
        found.sort(key=SORTS[sort], reverse=descending)  # type: ignore[arg-type]
        end = offset + min(limit, MAX_PAGE)
        return Page(found[offset:end], len(found), end if end < len(found) else None)

    def get(self, actor: Actor, name: str) -> Secret:
        """One secret. Raises `ApiProblem`: secret_not_found."""
        actor.require(Role.VIEWER)
        secret = self._names.find(name)
        if secret is None:
            raise _unknown()
        return secret

    def stored(self, actor: Actor, name: str) -> Secret:
        """One that may be changed here. Raises `ApiProblem`: secret_from_source, and as `get`."""
        secret = self.get(actor, name)
        self._refuse_declared(name)
        return secret

    def source_of(self, secret: Secret) -> str:
        """Where its values come from: ``store``, or the name and the kind of a source."""
        return self._names.declared.source_of(secret)

    def history(self, actor: Actor, name: str) -> Sequence[VersionInfo]:
        """Its versions, the oldest first; none of one from a source, whose versions the workers
        alone know. Raises `ApiProblem`: secret_not_found."""
        actor.require(Role.VIEWER)
        try:
            return self._store.history(name)
        except UnknownSecret:
            if self._names.declared.find(name) is not None:
                return []
            raise _unknown() from None

    def users(self, actor: Actor, secret: Secret) -> Sequence[policyuse.User]:
        """Who would miss it."""
        actor.require(Role.VIEWER)
        return policyuse.used_by(self._policy, secret, self._clock())

    # --- changing ----------------------------------------------------------------------------

    def create(
        self,
        actor: Actor,
        name: str,
        value: Value,
        *,
        domains: Sequence[str] = (),
        any_domain: bool = False,
        description: str = "",
        allow_short: bool = False,
    ) -> Changed:
        """Make a secret.

        Raises:
            ApiProblem: name_taken; or what is wrong with name, value, domains, description.
        """
        actor.require(Role.EDITOR)
        checked = read_name(name), read_value(value, allow_short), read_domains(domains, any_domain)

        self._refuse_sourced(name)

        def check(found: Secret | None) -> None:
            if found is not None:
                raise _taken()

        read_description(description)
        refuse_shown(checked[1], name, description)
        made = self._put(actor, "secret.create", *checked, description, None, check)
        return Changed(made, _warnings(made, value))

    def change(
        self,
        actor: Actor,
        name: str,
        *,
        expected: str,
        new_name: str | None = None,
        description: str | None = None,
        value: Value | None = None,
        domains: Sequence[str] | None = None,
        any_domain: bool = False,
        allow_short: bool = False,
    ) -> Changed:
        """Change name, description or value; domains together with the value alone.

        Args:
            expected: The `etag` that it must still have, or `ANY`.

        Raises:
            ApiProblem: secret_not_found, precondition_failed, value_required, name_taken; or
                what is wrong with one of them.
        """
        actor.require(Role.EDITOR)
        self._refuse_declared(name)
        if domains is not None and value is None:
            raise ApiProblem(
                Code.VALUE_REQUIRED,
                "A value is sealed together with its allowed domains, so changing them needs the"
                " value again.",
                hint="send the value along with allowed_domains",
            )
        if new_name is not None:
            read_name(new_name, "body.name")
            if new_name != name:
                self._refuse_sourced(new_name)
        if description is not None:
            read_description(description)

        def check(found: Secret | None) -> None:
            _expect(found, expected)

        if value is None:
            return Changed(self._edit(actor, name, new_name, description, check))
        patterns = None if domains is None else read_domains(domains, any_domain)
        plain = read_value(value, allow_short)
        refuse_shown(plain, new_name or "", description or "")
        put = self._put(actor, "secret.set", name, plain, patterns, description, new_name, check)
        return Changed(put, _warnings(put, value))

    def delete(self, actor: Actor, name: str, *, expected: str = ANY, force: bool = False) -> None:
        """Delete a secret with all its versions.

        Args:
            force: Even if it is in use; for owners.

        Raises:
            ApiProblem: secret_not_found, precondition_failed, secret_in_use with who uses it.
        """
        actor.require(Role.OWNER if force else Role.EDITOR)
        self._refuse_declared(name)
        about = {"secret": name, "force": "yes"} if force else {"secret": name}
        now = self._clock()
        with self._actions.noting_failure(actor, "secret.delete", **about) as written:

            def check(found: Secret | None) -> None:
                secret = _expect(found, expected)
                users = [] if force else policyuse.used_by(self._policy, secret, now)
                if users:
                    raise _in_use(users)
                self._actions.record(actor, "secret.delete", **about)
                written.append(True)

            try:
                self._store.delete(name, now=now, check=check)
            except UnknownSecret:
                raise _unknown() from None

    # --- inside ------------------------------------------------------------------------------

    def _refuse_sourced(self, name: str) -> None:
        """A stored secret would take the place of one whose value comes from a source."""
        if self._names.declared.takes(name):
            raise ApiProblem(
                Code.NAME_TAKEN,
                "The sources file declares a secret of this name.",
                hint="choose another name, or have an operator remove it from the sources file",
            )

    def _refuse_declared(self, name: str) -> None:
        """What comes from a source is changed there."""
        found = self._names.find(name)
        if found is not None and is_declared(found):
            raise ApiProblem(
                Code.SECRET_FROM_SOURCE,
                "The sources file declares it, and its value comes from a source.",
                hint="have an operator change the sources file, or the value at the source",
            )

    def _put(
        self,
        actor: Actor,
        action: str,
        name: str,
        value: bytes,
        patterns: Iterable[DomainPattern] | None,
        description: str | None,
        new_name: str | None,
        check: Check,
    ) -> Secret:
        about = {"secret": name}
        if patterns is not None:
            about["domains"] = ", ".join(map(str, patterns)) or "nowhere"
        if new_name is not None:
            about["new_name"] = new_name
        with self._actions.noting_failure(actor, action, **about) as written:

            def look(found: Secret | None) -> None:
                check(found)
                self._actions.record(actor, action, **about)
                written.append(True)

            try:
                return self._store.put(
                    name,
                    value,
                    domains=patterns,
                    description=description,
                    now=self._clock(),
                    new_name=new_name,
                    check=look,
                )
            except NameTaken:
                raise _taken() from None

    def _edit(
        self,
        actor: Actor,
        name: str,
        new_name: str | None,
        description: str | None,
        check: Check,
    ) -> Secret:
        changed = {"new_name": new_name} if new_name is not None else {}
        about = {"secret": name, **changed}
        with self._actions.noting_failure(actor, "secret.edit", **about) as written:

            def look(found: Secret | None) -> None:
                check(found)
                self._actions.record(actor, "secret.edit", **about)
                written.append(True)

            try:
                return self._store.edit(
                    name,
                    new_name=new_name,
                    description=description,
                    now=self._clock(),
                    check=look,
                )
            except NameTaken:
                raise _taken() from None
            except UnknownSecret:
                raise _unknown() from None


# --- what is told -----------------------------------------------------------------------------


def _holds(secret: Secret, wanted: str) -> bool:
    texts = (secret.name, secret.description, *map(str, secret.domains))
    return any(wanted in text.casefold() for text in texts)


def _expect(found: Secret | None, expected: str) -> Secret:
    if found is None:
        raise _unknown()
    if expected not in (ANY, etag(found)):
        raise ApiProblem(
            Code.PRECONDITION_FAILED,
            "Somebody has changed the secret since it was read.",
            hint="read it again, and send its ETag in If-Match",
        )
    return found


def _warnings(secret: Secret, value: Value) -> list[str]:
    found = [*weakness.warnings(value.bytes)]
    if len(value.bytes) < SAFE_LENGTH:
        found.append(f"the value is shorter than {SAFE_LENGTH} bytes and cannot be scrubbed safely")
    if not secret.domains:
        found.append("the value is allowed nowhere yet; set it again with its allowed domains")
    if any(pattern.any for pattern in secret.domains):
        found.append("the value may go to any host that a grant lets through")
    return found


def _unknown() -> ApiProblem:
    return ApiProblem(Code.SECRET_NOT_FOUND, hint="GET /api/v1/secrets lists the names there are")


def _taken() -> ApiProblem:
    return ApiProblem(
        Code.NAME_TAKEN,
        "A secret of this name exists, or one whose name differs by letter case or form alone.",
        hint="choose another name, or change that secret with PATCH",
    )


def _in_use(users: Sequence[policyuse.User]) -> ApiProblem:
    return ApiProblem(
        Code.SECRET_IN_USE,
        "It was not deleted: somebody would miss it.",
        hint="remove the grant first; an owner can delete it all the same with force=true",
        more={"used_by": [shown(user) for user in users]},
    )


def shown(user: policyuse.User) -> dict[str, object]:
    """*user* as a document."""
    return {
        "kind": user.kind,
        "detail": user.words,
        "line": user.line or None,
        "clients": list(user.clients),
    }
