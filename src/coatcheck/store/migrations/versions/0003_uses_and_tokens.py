"""How often a secret was used; and of a token its name, who made it, its end and its last use."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    op.add_column("secrets", sa.Column("uses", sa.BigInteger, nullable=False, server_default="0"))
    for name in ("name", "created_by"):
        op.add_column("tokens", sa.Column(name, sa.Text, nullable=False, server_default=""))
    for name in ("expires_at", "last_used_at"):
        op.add_column("tokens", sa.Column(name, sa.Double))
