"""The documents of the API about secrets. What is not described is refused."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, SecretStr

from coatcheck import policyuse
from coatcheck.admin.activity import Record
from coatcheck.admin.declared import STORE, is_declared
from coatcheck.admin.health import WorkerFacts
from coatcheck.admin.problems import invalid
from coatcheck.admin.secret_input import Value
from coatcheck.admin.secret_service import Changed, Page
from coatcheck.core.secret import MAX_QUOTED_NAME, Secret
from coatcheck.store.model import MAX_DESCRIPTION, MAX_DOMAINS, VersionInfo

Domain = Annotated[str, Field(min_length=1, max_length=300)]
Name = Annotated[str, Field(min_length=1, max_length=MAX_QUOTED_NAME)]
Description = Annotated[str, Field(max_length=MAX_DESCRIPTION)]
Domains = Annotated[list[Domain], Field(max_length=MAX_DOMAINS)]


class Incoming(BaseModel):
    """What comes in: nothing is guessed, nothing passed over."""

    model_config = ConfigDict(extra="forbid", strict=True, hide_input_in_errors=True)


class Outgoing(BaseModel):
    model_config = ConfigDict(extra="forbid")


class _WithValue(Incoming):
    value: SecretStr | None = Field(None, description="The value, as text.")
    value_base64: SecretStr | None = Field(
        None, description="Instead of value: the bytes of the value in base64."
    )
    any_domain: bool = Field(False, description="The value may go to any host.")
    allow_short: bool = Field(
        False, description="Take a value that is too short to be scrubbed safely."
    )

    def taken_value(self) -> Value | None:
        """The value; None where there is none.

        Raises:
            ApiProblem: there are two, or what should be base64 is none.
        """
        if self.value is not None and self.value_base64 is not None:
            raise invalid("body.value_base64", "is there besides value", "send one of them")
        if self.value is not None:
            try:
                return Value(self.value.get_secret_value().encode("utf-8"))
            except UnicodeEncodeError:
                raise invalid("body.value", "is no text", "send value_base64") from None
        if self.value_base64 is None:
            return None
        try:
            return Value(base64.b64decode(self.value_base64.get_secret_value(), validate=True))
        except (binascii.Error, ValueError):
            raise invalid("body.value_base64", "is no base64") from None


class SecretNew(_WithValue):
    """A secret to be made."""

    name: Name
    description: Description = ""
    allowed_domains: Domains = Field(
        default_factory=list,
        description="Where the value may go: api.example.com, *.example.com, with :port if"
        " needed. Empty: nowhere.",
    )


class SecretChange(_WithValue):
    """What is to change of a secret; what is left out, or null, stays as it is."""

    name: Name | None = None
    description: Description | None = None
    allowed_domains: Domains | None = Field(
        None, description="Only together with the value, which is sealed with them."
    )


class SecretOut(Outgoing):
    """What is known of a secret. There is no field for its value, and no route that has one."""

    name: str
    description: str
    allowed_domains: list[str]
    source: str = Field(
        description="Where values come from: store, or the name and the kind of a source. One from"
        " a source cannot be changed here; its versions, times and uses are null."
    )
    version: int | None
    created_at: datetime | None
    updated_at: datetime | None
    last_used_at: datetime | None
    uses: int | None

    @classmethod
    def of(cls, secret: Secret, source: str = STORE) -> Self:
        stored = not is_declared(secret)
        return cls(
            name=secret.name,
            description=secret.description,
            allowed_domains=[str(domain) for domain in secret.domains],
            source=source,
            version=secret.version if stored else None,
            created_at=moment(secret.created_at) if stored else None,
            updated_at=moment(secret.updated_at) if stored else None,
            last_used_at=moment_or_none(secret.last_used_at),
            uses=secret.uses if stored else None,
        )


class SecretChanged(SecretOut):
    warnings: list[str] = Field(description="What is worth a second look.")

    @classmethod
    def after(cls, changed: Changed) -> Self:
        out = SecretOut.of(changed.secret).model_dump()
        return cls(**out, warnings=list(changed.warnings))


class SecretList(Outgoing):
    items: list[SecretOut]
    total: int = Field(description="How many there are, on all pages.")
    next_offset: int | None = Field(description="Of the next page; null on the last one.")

    @classmethod
    def of(cls, page: Page, source_of: Callable[[Secret], str]) -> Self:
        items = [SecretOut.of(secret, source_of(secret)) for secret in page.items]
        return cls(items=items, total=page.total, next_offset=page.next_offset)


class VersionOut(Outgoing):
    version: int
    allowed_domains: list[str]
    created_at: datetime
    replaced_at: datetime | None
    value_kept: bool = Field(
        description="Whether its sealed value is still there: the current one's, and for a while"
        " those before, which are scrubbed and never sent."
    )


class History(Outgoing):
    name: str
    versions: list[VersionOut] = Field(description="The oldest first.")

    @classmethod
    def of(cls, name: str, versions: Sequence[VersionInfo]) -> Self:
        return cls(
            name=name,
            versions=[
                VersionOut(
                    version=info.version,
                    allowed_domains=[str(domain) for domain in info.domains],
                    created_at=moment(info.created_at),
                    replaced_at=moment_or_none(info.replaced_at),
                    value_kept=info.kept,
                )
                for info in versions
            ],
        )


class InForce(Outgoing):
    number: int
    ready: bool
    version: int | None = Field(
        description="Null where the worker has not read the newest revision of the store yet."
    )


class LastUse(Outgoing):
    time: str
    client: str
    host: str
    method: str
    path: str


class LastRefusal(LastUse):
    code: str


class SecretUser(Outgoing):
    kind: str = Field(description="grant, use, or policy where that cannot be read.")
    detail: str
    line: int | None
    clients: list[str]


class SecretStatus(Outgoing):
    name: str
    version: int | None = Field(description="Null for one from a source.")
    workers: list[InForce] = Field(description="None for one from a source.")
    last_used_at: datetime | None
    uses: int | None
    last_use: LastUse | None = Field(description="As far as the audit log goes back.")
    last_refusal: LastRefusal | None
    used_by: list[SecretUser] = Field(description="Who would miss it.")

    @classmethod
    def of(
        cls,
        secret: Secret,
        workers: Sequence[tuple[WorkerFacts, int | None]],
        use: Record | None,
        refusal: Record | None,
        users: Sequence[policyuse.User],
    ) -> Self:
        stored = not is_declared(secret)
        return cls(
            name=secret.name,
            version=secret.version if stored else None,
            workers=[
                InForce(number=worker.number, ready=worker.ready, version=version)
                for worker, version in (workers if stored else ())
            ],
            last_used_at=moment_or_none(secret.last_used_at),
            uses=secret.uses if stored else None,
            last_use=None if use is None else LastUse(**_told(use)),
            last_refusal=None
            if refusal is None
            else LastRefusal(**_told(refusal), code=str(refusal.get("code", ""))),
            used_by=[
                SecretUser(
                    kind=user.kind,
                    detail=user.words,
                    line=user.line or None,
                    clients=list(user.clients),
                )
                for user in users
            ],
        )


def _told(record: Record) -> dict[str, str]:
    return {
        name: str(record.get(name, "")) for name in ("time", "client", "host", "method", "path")
    }


def moment(at: float) -> datetime:
    """To the second."""
    return datetime.fromtimestamp(int(at), UTC)


def moment_or_none(at: float | None) -> datetime | None:
    return None if at is None else moment(at)
