"""The tables. SQLite and PostgreSQL hold the same ones; `migrations/` makes and changes them.

Times are seconds since the epoch. A secret's row holds what everyone may know; the sealed values
stand in ``versions``, the current one and those replaced. Of a replaced version the sealed value
is dropped after the grace period, while its row stays as history.
"""

from __future__ import annotations

import sqlalchemy as sa

HEAD = "0003"  # the newest migration that this program knows; a test compares it with the folder
OLDER = ("0001", "0002")  # those before it, which a store is brought up from when it is opened
UNFINISHED = 0  # revision of a store that a move has not filled yet (`moving`)

metadata = sa.MetaData()

meta = sa.Table(
    "meta",
    metadata,
    sa.Column("id", sa.Integer, sa.CheckConstraint("id = 1"), primary_key=True),
    sa.Column("store_id", sa.String(32), nullable=False),
    sa.Column("key_id", sa.String(16), nullable=False),
    sa.Column("revision", sa.BigInteger, nullable=False),
    sa.Column("created_at", sa.Double, nullable=False),
    # While records are sealed anew: the key before, which may still be written for.
    sa.Column("former_key_id", sa.String(16)),
)

secrets = sa.Table(
    "secrets",
    metadata,
    sa.Column("id", sa.String(32), primary_key=True),
    sa.Column("name", sa.Text, nullable=False, unique=True),
    # The name as a reader sees it (`model.name_key`), so that no two look alike.
    sa.Column("name_key", sa.Text, nullable=False, unique=True),
    sa.Column("description", sa.Text, nullable=False),
    sa.Column("version", sa.Integer, nullable=False),
    sa.Column("domains", sa.JSON, nullable=False),
    sa.Column("created_at", sa.Double, nullable=False),
    sa.Column("updated_at", sa.Double, nullable=False),
    sa.Column("last_used_at", sa.Double),
    # Requests that it was put into, as far as workers have written it down.
    sa.Column("uses", sa.BigInteger, nullable=False, server_default="0"),
)

versions = sa.Table(
    "versions",
    metadata,
    sa.Column("secret_id", sa.ForeignKey("secrets.id", ondelete="CASCADE"), primary_key=True),
    sa.Column("version", sa.Integer, primary_key=True),
    sa.Column("record", sa.LargeBinary),
    sa.Column("key_id", sa.String(16), nullable=False),
    sa.Column("domains", sa.JSON, nullable=False),
    sa.Column("created_at", sa.Double, nullable=False),
    sa.Column("replaced_at", sa.Double),
)

tokens = sa.Table(
    "tokens",
    metadata,
    sa.Column("sha256", sa.String(64), primary_key=True),
    sa.Column("role", sa.String(32), nullable=False),
    sa.Column("created_at", sa.Double, nullable=False),
    sa.Column("name", sa.Text, nullable=False, server_default=""),
    sa.Column("created_by", sa.Text, nullable=False, server_default=""),
    sa.Column("expires_at", sa.Double),
    sa.Column("last_used_at", sa.Double),
)
