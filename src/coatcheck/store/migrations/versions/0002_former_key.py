"""Which key was in use before, while its records are sealed anew (`store/rotation.py`)."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.add_column("meta", sa.Column("former_key_id", sa.String(16)))
