"""G1: the address that is dialled, and who answers there."""

from __future__ import annotations

from tests.breaks.change import Break

_ADDRESS = "tests/core/test_address.py::"
_SPECIAL = (_ADDRESS + "test_a_special_address_is_not_dialled",)
_RESOLVER = "tests/engine/test_resolver.py::"
_TLS = "tests/engine/test_tls.py::"


def _row(network: str, reason: str) -> Break:
    """The table of ranges without this row."""
    return Break(
        f"range-{network}",
        f"{network} is dialled.",
        "core/address.py",
        f'    ("{network}", Reason.{reason}),',
        "",
        _SPECIAL,
    )


BREAKS = (
    Break(
        "getpeername",
        "The address at the other end is not compared with the one that was vetted.",
        "engine/dialer.py",
        "            if sock.getpeername()[0] == address:",
        "            if sock.getpeername():",
        (_TLS + "test_the_address_that_was_vetted_is_the_one_at_the_other_end",),
    ),
    Break(
        "one-bad-answer",
        "Of several answers the good ones are dialled, whatever the others are.",
        "engine/resolver.py",
        "        if bad and not (good and _is_loopback_pair(verdicts)):",
        "        if bad and not good:",
        (_RESOLVER + "test_one_bad_answer_spoils_all",),
    ),
    Break(
        "search-domains",
        "A name is asked for without the trailing dot, so that search domains apply.",
        "engine/resolver.py",
        '                answers = self._lookup(host + ".")',
        "                answers = self._lookup(host)",
        (_RESOLVER + "test_a_name_is_asked_with_a_trailing_dot_so_that_no_search_domain_applies",),
    ),
    Break(
        "verdict-kept",
        "Answers that are kept are not vetted again.",
        "engine/resolver.py",
        "        answers = await self._answers(host)\n",
        "        if (kept := self._cache.get(host)) is not None:\n"
        "            return list(kept[1])\n"
        "        answers = await self._answers(host)\n",
        (_RESOLVER + "test_a_changed_policy_counts_for_kept_answers",),
    ),
    _row("10.0.0.0/8", "PRIVATE"),
    _row("127.0.0.0/8", "LOOPBACK"),
    _row("2002::/16", "TRANSITION"),
    _row("2001::/23", "TRANSITION"),
    Break(
        "range-100.64.0.0/10",
        "100.64.0.0/10 is dialled.",
        "core/address.py",
        '    ("100.64.0.0/10", Reason.SHARED),  # RFC 6598\n',
        "",
        _SPECIAL,
    ),
    Break(
        "range-169.254.0.0/16",
        "169.254.0.0/16 is dialled.",
        "core/address.py",
        '    ("169.254.0.0/16", Reason.LINK_LOCAL),  # RFC 3927\n',
        "",
        _SPECIAL,
    ),
    Break(
        "global-unicast",
        "IPv6 outside of 2000::/3 is dialled where no row of the table holds it.",
        "core/address.py",
        "    if address.version == 6 and address not in GLOBAL_UNICAST:",
        "    if address.version == 0:",
        _SPECIAL,
    ),
    Break(
        "metadata-azure",
        "Azure's platform address, in a public range, is dialled.",
        "core/address.py",
        '    "168.63.129.16",  # Azure WireServer, in a public range\n',
        "",
        _SPECIAL,
    ),
    Break(
        "metadata-lifted",
        "A network in egress.networks lifts the metadata address inside.",
        "core/address.py",
        "        return None if exact in allowed else reason",
        "        return None if any(address in network for network in allowed) else reason",
        (_ADDRESS + "test_a_network_does_not_lift",),
    ),
    Break(
        "never-lifted",
        "egress.networks lifts unspecified and multicast addresses.",
        "core/address.py",
        "    if reason in _NEVER_LIFTED:",
        "    if reason is Reason.NOT_AN_ADDRESS:",
        (_ADDRESS + "test_a_network_does_not_lift",),
    ),
    Break(
        "nat64-and-mapped",
        "The IPv4 address inside a NAT64 or mapped one is not judged.",
        "core/address.py",
        "    *_TRANSPARENT,\n",
        "",
        _SPECIAL,
    ),
    Break(
        "nat64",
        "The IPv4 address inside a NAT64 one is not judged.",
        "core/address.py",
        "    *_TRANSPARENT,\n",
        "    *_TRANSPARENT[1:],\n",
        _SPECIAL,
    ),
    Break(
        "mapped",
        "The IPv4 address inside a mapped one is not judged.",
        "core/address.py",
        "    *_TRANSPARENT,\n",
        "    *_TRANSPARENT[:1],\n",
        _SPECIAL,
    ),
    Break(
        "6to4",
        "The IPv4 address inside a 6to4 one is not judged.",
        "core/address.py",
        "    if address.sixtofour is not None:",
        "    if address.sixtofour is Reason.METADATA:",
        (_ADDRESS + "test_a_network_does_not_lift",),
    ),
    Break(
        "teredo",
        "The IPv4 addresses inside a Teredo one are not judged.",
        "core/address.py",
        "    if address.teredo is not None:",
        "    if address.teredo is Reason.METADATA:",
        (_ADDRESS + "test_a_network_does_not_lift",),
    ),
    Break(
        "zone",
        "The zone of a scoped address is read over.",
        "core/address.py",
        '    if "%" in address:',
        '    if address.startswith("%"):',
        _SPECIAL,
    ),
    Break(
        "own-addresses",
        "The machine's own public addresses are dialled.",
        "core/address.py",
        "    if reason is None and address in own:",
        "    if reason is Reason.OWN:",
        (_ADDRESS + "test_own_addresses",),
    ),
    Break(
        "own-sockets",
        "A wildcard listener stands for no address.",
        "core/address.py",
        "        wildcard = bound is None or bound.is_unspecified",
        "        wildcard = False",
        (_ADDRESS + "test_own_sockets_are_never_dialled",),
    ),
    Break(
        "admin-port",
        "The admin port can be reached through the proxy where loopback may.",
        "app.py",
        "own_sockets=lambda: [*worker.addresses, settings.admin, *admin]",
        "own_sockets=lambda: worker.addresses",
        ("tests/test_app.py::test_where_loopback_may_be_reached_its_own_ports_may_not",),
    ),
    Break(
        "admin-port-picked",
        "An admin port that the system picked can be reached through the proxy.",
        "app.py",
        "own_sockets=lambda: [*worker.addresses, settings.admin, *admin]",
        "own_sockets=lambda: [*worker.addresses, settings.admin]",
        ("tests/e2e/test_admin.py::test_no_client_reaches_it_through_the_proxy",),
    ),
    Break(
        "proxy-port",
        "The proxy can be reached through itself where loopback may.",
        "app.py",
        "own_sockets=lambda: [*worker.addresses, settings.admin, *admin]",
        "own_sockets=lambda: [settings.admin]",
        ("tests/test_app.py::test_where_loopback_may_be_reached_its_own_ports_may_not",),
    ),
    Break(
        "certificate",
        "No certificate is verified.",
        "engine/tls.py",
        "    ctx = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # checks chain and host name\n",
        "    ctx = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)\n"
        "    ctx.check_hostname, ctx.verify_mode = False, ssl.CERT_NONE\n",
        (_TLS + "test_an_upstream_proves_its_name_before_the_first_byte",),
    ),
    Break(
        "hostname",
        "Any certificate that chains up will do, whatever its name.",
        "engine/tls.py",
        "    ctx = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # checks chain and host name\n",
        "    ctx = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)\n    ctx.check_hostname = False\n",
        (_TLS + "test_an_upstream_proves_its_name_before_the_first_byte",),
    ),
    Break(
        "common-name",
        "A name in CN alone will do.",
        "engine/tls.py",
        "    ctx.hostname_checks_common_name = False",
        "    ctx.hostname_checks_common_name = True",
        (_TLS + "test_an_upstream_proves_its_name_before_the_first_byte",),
    ),
    Break(
        "tls-1.1-upstream",
        "An upstream may speak TLS 1.1.",
        "engine/tls.py",
        "    ctx.minimum_version = ssl.TLSVersion.TLSv1_2\n    ctx.hostname_checks",
        "    ctx.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED\n"
        '    ctx.set_ciphers("DEFAULT:@SECLEVEL=0")\n'
        "    ctx.hostname_checks",
        (_TLS + "test_an_upstream_of_an_old_tls_is_refused",),
    ),
    Break(
        "tls-1.1-client",
        "A client may speak TLS 1.1.",
        "engine/tls.py",
        "        ctx.minimum_version = ssl.TLSVersion.TLSv1_2\n"
        '        ctx.set_ciphers(":".join(CIPHERS))\n',
        "        ctx.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED\n"
        '        ctx.set_ciphers("DEFAULT:@SECLEVEL=0")\n',
        (_TLS + "test_a_client_of_an_old_tls_is_refused",),
    ),
    Break(
        "system-bundle",
        "The operating system's authorities are trusted too.",
        "engine/tls.py",
        "    ctx.load_verify_locations(certifi.where())\n",
        "    ctx.load_verify_locations(certifi.where())\n    ctx.set_default_verify_paths()\n",
        (_TLS + "test_the_systems_own_bundle_is_not_asked",),
    ),
)
