"""The policy, to be looked at: its text and mistakes, drafts, grants by client and by secret.

Nothing here changes it: who edits the file decides who uses which secret, and that stays with
those who have the file. Hashes of client tokens are cut short in what is shown.
"""

from __future__ import annotations

import hashlib
import re
import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from coatcheck import policyfile
from coatcheck.admin import draft_words
from coatcheck.admin.declared import Names
from coatcheck.admin.problems import ApiProblem, Code, invalid
from coatcheck.admin.roles import Actor, Role
from coatcheck.core import asked
from coatcheck.core.limits import Limits
from coatcheck.core.policy import Client, Grant, Policy
from coatcheck.core.ports import CoatcheckError
from coatcheck.core.secret import Secret
from coatcheck.yamlfile import read_text, stamp
from coatcheck.yamltree import FileError, Mistake

_HASH = re.compile(r"(sha256:[0-9a-f]{8})[0-9a-f]{56}")


@dataclass(frozen=True, slots=True)
class Error:
    """A mistake. Line and column count from 1; 0 where it has no place in the text."""

    line: int
    column: int
    problem: str
    hint: str


@dataclass(frozen=True, slots=True)
class Checked:
    """A policy text, judged.

    Attributes:
        digest: SHA-256 (hex) of the text.
        policy: None where it cannot be used.
    """

    text: str
    digest: str
    errors: Sequence[Error]
    warnings: Sequence[str]
    policy: Policy | None


@dataclass(frozen=True, slots=True)
class Current:
    """The file as it is now, and what was the last good one.

    Attributes:
        good: The last text that could be used, as far as this process has seen one.
    """

    path: str
    now: Checked
    good: Checked | None


@dataclass(frozen=True, slots=True)
class Effective:
    """A grant, and the secrets that there are for it."""

    grant: Grant
    secrets: Sequence[Secret]


class PolicyService:
    def __init__(self, path: Path, names: Names, limits: Limits) -> None:
        self._path = path
        self._names = names
        self._limits = limits
        self._lock = threading.Lock()
        self._read: tuple[object, Checked] | None = None
        self._good: Checked | None = None

    def current(self, actor: Actor) -> Current:
        """The policy file, and the last good one."""
        actor.require(Role.VIEWER)
        now = self.look()
        return Current(str(self._path), now, self._good)

    def look(self) -> Checked:
        """The policy file as it is now; for health as well, so without an actor."""
        with self._lock:
            now = stamp(self._path)
            if self._read is None or self._read[0] != now:
                self._read = (now, self._checked_file())
            found = self._read[1]
            if found.policy is not None:
                self._good = found
            return found

    def validate(self, actor: Actor, text: str) -> Checked:
        """Judge a draft. Nothing is kept of it, and none of its words told (`draft_words`)."""
        actor.require(Role.VIEWER)
        found = _check(text, "draft")
        errors = [
            replace(
                error,
                problem=draft_words.of_mistake(error.problem, text),
                hint=draft_words.of_mistake(error.hint, text),
            )
            for error in found.errors
        ]
        policy = found.policy
        warnings = [draft_words.of_warning(w, policy) for w in found.warnings] if policy else ()
        return replace(found, errors=errors, warnings=warnings)

    def clients(self, actor: Actor) -> Sequence[tuple[Client, Sequence[Effective]]]:
        """The clients, each with its grants."""
        actor.require(Role.VIEWER)
        rules, secrets = self._rules(), self._names.all()
        return [
            (client, _effective(rules, secrets, client=client.name)) for client in rules.clients
        ]

    def grants(
        self, actor: Actor, *, client: str | None = None, secret: str | None = None
    ) -> Sequence[Effective]:
        """The grants, or those for one client, for one secret, or both.

        Raises:
            ApiProblem: client_not_found, secret_not_found, policy_unavailable.
        """
        actor.require(Role.VIEWER)
        rules, secrets = self._rules(), self._names.all()
        if client is not None and client not in [one.name for one in rules.clients]:
            raise _no_client()
        if secret is not None and secret not in [one.name for one in secrets]:
            raise ApiProblem(Code.SECRET_NOT_FOUND)
        return _effective(rules, secrets, client=client, secret=secret)

    def explain(
        self,
        actor: Actor,
        *,
        client: str | None,
        method: str,
        url: str,
        headers: Sequence[str] = (),
        body: str | None = None,
    ) -> dict[str, object]:
        """What would become of a request; the document of `coatcheck policy explain`.

        Args:
            client: May be None where the policy has one client only.
            headers: ``Name: value``.

        Raises:
            ApiProblem: it is no request, client_not_found, policy_unavailable.
        """
        actor.require(Role.VIEWER)
        rules = self._rules()
        names = [one.name for one in rules.clients]
        if client is None and len(names) == 1:
            client = names[0]
        if client is None:
            raise invalid("body.client", "is missing", "the policy has not exactly one client")
        if client not in names:
            raise _no_client()
        try:
            request = asked.read_request(method, url, headers, body)
        except asked.BadRequest as error:
            place = {"header": "body.headers"}.get(error.part, f"body.{error.part}")
            hint = "write each as 'Name: value'" if error.part == "header" else error.hint
            raise invalid(place, "is none that a client could send", hint) from None
        made = request.explain(rules, client, self._names.find, self._limits)
        return asked.document(made, rules)

    def _rules(self) -> Policy:
        """The policy in force, as far as this process knows: the last good one."""
        self.look()
        if self._good is None or self._good.policy is None:
            raise ApiProblem(
                Code.POLICY_UNAVAILABLE, hint="GET /api/v1/policy shows what is wrong with it"
            )
        return self._good.policy

    def _checked_file(self) -> Checked:
        try:
            text = read_text(self._path, missing="create it with coatcheck init")
        except FileError as error:
            return Checked("", "", _errors(error.mistakes), (), None)
        return _check(text, str(self._path))


def masked(text: str) -> str:
    """*text* with the hashes of tokens cut short."""
    return _HASH.sub(r"\1…", text)


def _check(text: str, source: str) -> Checked:
    digest = hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()
    try:
        policy = policyfile.parse(text, source)
    except policyfile.PolicyError as error:
        return Checked(text, digest, _errors(error.mistakes), (), None)
    except CoatcheckError as error:
        return Checked(text, digest, [Error(0, 0, error.problem, error.hint)], (), None)
    return Checked(text, digest, (), policyfile.warnings(policy), policy)


def _errors(mistakes: Sequence[Mistake]) -> list[Error]:
    found = []
    for mistake in mistakes:
        place = re.search(r":(\d+):(\d+)$", mistake.where)
        line, column = (int(place[1]), int(place[2])) if place else (0, 0)
        found.append(Error(line, column, mistake.what, mistake.hint))
    return found


def _effective(
    rules: Policy,
    secrets: Sequence[Secret],
    *,
    client: str | None = None,
    secret: str | None = None,
) -> list[Effective]:
    return [
        Effective(grant, [one for one in secrets if grant.names(one.name)])
        for grant in rules.grants
        if (client is None or client in grant.clients) and (secret is None or grant.names(secret))
    ]


def _no_client() -> ApiProblem:
    return ApiProblem(Code.CLIENT_NOT_FOUND, hint="GET /api/v1/clients lists the clients there are")
