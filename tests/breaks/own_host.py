"""coatcheck.internal, its pages and the URLs behind it in bounds; how else requests could come."""

from __future__ import annotations

from tests.breaks.change import Break

_LANE = "tests/engine/test_own_host.py::"
_INTERNAL = "tests/core/test_internal.py::"
_CANARY = "tests/test_canary.py::"
_DOCTOR = "tests/cli/test_doctor_canary.py::"

G1 = (
    Break(
        "own-name",
        "Our own name is a destination like any other.",
        "gateway.py",
        "    if internal.is_reserved(destination.host):",
        '    if destination.host == "":',
        (_LANE + "test_what_is_not_served", _LANE + "test_a_request_that_may_not_go_there"),
    ),
    Break(
        "own-name-resolved",
        "A name server is asked for our own name.",
        "engine/resolver.py",
        "        if not _is_canonical(host) or internal.is_reserved(host):",
        "        if not _is_canonical(host):",
        ("tests/engine/test_resolver.py::test_our_own_name_is_never_asked_for",),
    ),
    Break(
        "url-way-out",
        "What is put to a URL may lead out of it.",
        "core/internal.py",
        '    if slash and canonical_path(b"/" + more) is None:',
        '    if slash and canonical_path(b"/") is None:',
        (_INTERNAL + "test_what_is_not_served",),
    ),
    Break(
        "mode-refused",
        "A mode in which nothing holds the names of a request together is taken for regular.",
        "settingtable.py",
        "        raise Wrong(what, refused.instead)",
        "        return REGULAR",
        ("tests/test_settingmodes.py::test_another_one_is_refused_with_promise_and_next_step",),
    ),
    Break(
        "canary-secrets",
        "Where the canary is answered, secrets of the store are filled in too.",
        "canary.py",
        "                Snapshot(canary.policy_for(client), self._view),",
        "                Snapshot(like.snapshot.policy, like.snapshot.view),",
        (_CANARY + "test_what_is_refused_is_recorded_once",),
    ),
)
G2 = (
    Break(
        "canary-proof",
        "Whoever knows the nonce can make the canary's proof.",
        "core/canary.py",
        "    return hmac.new(key, text, hashlib.sha256).hexdigest()",
        "    return hmac.new(key[:0], text, hashlib.sha256).hexdigest()",
        (_CANARY + "test_the_proof_depends_on_key_nonce_and_what_was_seen",),
    ),
    Break(
        "url-host-told",
        "A refusal names the host that the value leads to.",
        "gateway.py",
        "        return self.destination.host if self._aim is None else internal.HOST",
        "        return self.destination.host",
        (_LANE + "test_a_failed_connection_does_not_tell_the_host",),
    ),
    Break(
        "url-host-recorded",
        "An audit line has the host that the value leads to.",
        "gateway.py",
        "            destination if aim is None else aim.shown,",
        "            destination,",
        (_LANE + "test_a_record_tells_no_more_of_the_host_than_the_allowed_domains",),
    ),
    Break(
        "own-list",
        "A client reads the names of every secret.",
        "core/snapshot.py",
        "        own = ((secret, grants) for secret, grants in found if grants)",
        "        own = ((secret, grants) for secret, grants in found)",
        (_LANE + "test_a_client_reads_the_names_granted_to_it_and_no_others",),
    ),
    Break(
        "own-list-terms",
        "A client reads what is granted to others.",
        "core/policy.py",
        "    return tuple(g for g in policy.grants if client in g.clients and g.names(name))",
        "    return tuple(g for g in policy.grants if client and g.names(name))",
        (
            _LANE + "test_a_client_reads_the_names_granted_to_it_and_no_others",
            _LANE + "test_a_grant_to_another_client_is_not_among_the_terms",
        ),
    ),
)
G3 = (
    Break(
        "url-granted",
        "Any grant lets requests go to the URL that is a value.",
        "ownhost.py",
        "    if not any(grant.takes_urls for grant in grants):",
        "    if not any(grant.secrets for grant in grants):",
        (_LANE + "test_a_request_that_may_not_go_there",),
    ),
    Break(
        "url-kept",
        "Where placeholders stay text, a request goes on without its URL.",
        "core/policy.py",
        "    if any(where.kind is Kind.URL for where in need.locations):",
        "    if not need.locations:",
        (_LANE + "test_a_url_is_never_kept_as_text",),
    ),
)
G4 = (
    Break(
        "url-parts",
        "Only the whole URL is searched for, and not what a server quotes of it.",
        "core/snapshot.py",
        "[v for secret, v in pairs if secret.id in scope.urls]",
        "[v for secret, v in pairs if not secret.id]",
        (_LANE + "test_an_answer_does_not_give_the_url_away",),
    ),
    Break(
        "canary-unscrubbed",
        "Doctor does not look for the value in what came back.",
        "cli/doctor_canary.py",
        "    if _holds(answer.data, value):",
        "    if _holds(answer.data[:0], value):",
        (_DOCTOR + "test_the_value_that_came_back_is_not_printed",),
    ),
    Break(
        "canary-uninjected",
        "Doctor takes any proof.",
        "cli/doctor_canary.py",
        "    if not hmac.compare_digest(proof.encode(), answer.field(canary.PROOF).encode()):",
        "    if not hmac.compare_digest(proof.encode(), proof.encode()):",
        (_DOCTOR + "test_a_proof_by_another_key_is_none",),
    ),
)
G5 = (
    Break(
        "own-page-unrecorded",
        "A page is given out though its record cannot be written.",
        "ownhost.py",
        "            self.gateway.log.write(audit.allowed(self.gateway.now(), facts, ()))",
        "            audit.allowed(self.gateway.now(), facts, ())",
        (_LANE + "test_without_a_record_there_is_no_page",),
    ),
)
