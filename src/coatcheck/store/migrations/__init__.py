"""The history of the schema, one file a step, in `versions/`. A step that was released never
changes; the next one gets the next number, and `schema.HEAD` names it."""

from __future__ import annotations

from pathlib import Path

import sqlalchemy as sa


def upgrade(connection: sa.Connection) -> None:
    """Bring the tables behind *connection* to the newest schema, from whatever they are now."""
    # Half a second of import, needed when a store is made and never later.
    from alembic import command
    from alembic.config import Config

    config = Config()
    # A '%' in the path would start an interpolation.
    config.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    config.attributes["connection"] = connection
    command.upgrade(config, "head")
