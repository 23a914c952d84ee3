"""All breaks, by the promise of SECURITY.md that each takes away; those of the admin side apart."""

from __future__ import annotations

from tests.breaks import (
    admin_side,
    g1_address,
    g1_destination,
    g1_framing,
    g1_resting,
    g2_self,
    g3_location,
    g4_channels,
    g4_reflection,
    g5_fail_closed,
    g6_prior_record,
    own_host,
    page,
    sources,
)
from tests.breaks.change import Break

TABLE: dict[str, tuple[Break, ...]] = {
    "G1": (
        *g1_destination.BREAKS,
        *g1_address.BREAKS,
        *g1_framing.BREAKS,
        *g1_resting.BREAKS,
        *own_host.G1,
        *sources.G1,
    ),
    "G2": (*g2_self.BREAKS, *own_host.G2, *sources.G2),
    "G3": (*g3_location.BREAKS, *own_host.G3),
    "G4": (*g4_reflection.BREAKS, *g4_channels.BREAKS, *own_host.G4, *sources.G4),
    "G5": (*g5_fail_closed.BREAKS, *own_host.G5, *sources.G5),
    "G6": g6_prior_record.BREAKS,
    "admin": (*admin_side.BREAKS, *page.BREAKS),
}
BREAKS: tuple[Break, ...] = tuple(one for several in TABLE.values() for one in several)
