"""G5: what goes wrong ends in a refusal, and nobody can have it all for themselves."""

from __future__ import annotations

from tests.breaks.change import Break

_FAULTS = "tests/engine/test_faults.py::"
_LANE = "tests/engine/test_lane.py::"
_SERVER = "tests/engine/test_server.py::"
_ADMISSION = "tests/engine/test_admission.py::"
_HARDEN = "tests/engine/test_harden.py::"
_WORKER = "tests/workers/test_worker.py::"
_GUARD = (
    "            return step(self, *args, **more)\n"
    "        except Exception as error:  # fail closed: any bug is a refusal\n"
)
_STEPS_GUARD = (
    "            return (yield from steps(self, *args, **more))\n"
    "        except Exception as error:  # fail closed: any bug is a refusal\n"
)


BREAKS = (
    Break(
        "gateway-request",
        "A request goes on as it came when the gateway fails.",
        "gateway.py",
        _STEPS_GUARD,
        _STEPS_GUARD + '            if steps.__name__ == "opening":\n'
        '                return Outgoing(self._head, b"", 0)  # type: ignore[return-value]\n',
        (_FAULTS + "test_a_fault_before_sending_sends_nothing",),
    ),
    Break(
        "gateway-answer",
        "A chunk of the answer goes on as it came when the gateway fails.",
        "gateway.py",
        _GUARD,
        _GUARD + '            if step.__name__ == "_scrub":\n'
        "                return args[0]  # type: ignore[return-value]\n",
        (_FAULTS + "test_a_fault_after_sending_shows_no_byte_of_the_answer",),
    ),
    Break(
        "gateway-upload",
        "A streamed body goes on as it came when the gateway fails.",
        "gateway.py",
        _STEPS_GUARD,
        _STEPS_GUARD + '            if steps.__name__ == "feeding":\n'
        "                yield args[0]  # type: ignore[misc]\n"
        "                return None  # type: ignore[return-value]\n",
        (_FAULTS + "test_a_fault_in_a_streamed_upload_leaves_it_without_an_end",),
    ),
    Break(
        "lane-answer",
        "What the lane fails on goes to the client as it came.",
        "engine/lane.py",
        "        except Exception as error:  # fail closed: a bug is a refusal too\n",
        "        except Exception as error:  # fail closed: a bug is a refusal too\n"
        "            if told and isinstance(told[0], bytes):\n"
        "                self._io.send(told[0])\n"
        "                return\n",
        (_FAULTS + "test_a_fault_after_sending_shows_no_byte_of_the_answer",),
    ),
    Break(
        "refusal-in-the-middle",
        "A refusal is written into an answer that has begun.",
        "engine/lane.py",
        "            if job.answer.began:\n                self._close_all()\n",
        "            if False:\n                self._close_all()\n",
        (_LANE + "test_an_answer_that_breaks_off_is_broken_off_for_the_client_too",),
    ),
    Break(
        "broken-off",
        "An answer that breaks off is ended as if it were whole.",
        "engine/answer.py",
        "        if not isinstance(self._body, http1.CloseReader):",
        "        if self._body.done:",
        (_LANE + "test_an_answer_that_breaks_off_is_broken_off_for_the_client_too",),
    ),
    Break(
        "crash",
        "A connection whose lane has crashed stays open.",
        "engine/channel.py",
        "            self.abort()\n            self._owner.crashed(self)\n",
        "            return\n",
        (_SERVER + "test_the_crash_of_one_connection_is_its_own",),
    ),
    Break(
        "addon-deny-first",
        "A hook of the addon does not deny first.",
        "engine/addon.py",
        "        self.refuse(flow, Problem(Code.INTERNAL_ERROR))\n        try:",
        "        try:",
        (_FAULTS + "test_requestheaders_refuses_when_it_fails",),
    ),
    Break(
        "addon-withhold-first",
        "An answer passes when the addon fails on it.",
        "engine/addon.py",
        "        self._withhold(flow, Problem(Code.RESPONSE_WITHHELD))\n",
        "",
        (_FAULTS + "test_responseheaders_withholds_when_it_fails",),
    ),
    Break(
        "addon-connect",
        "mitmproxy connects when the addon fails to vet the address.",
        "engine/addon.py",
        "        server.error = str(Code.INTERNAL_ERROR)\n",
        "",
        (_FAULTS + "test_server_connect_makes_no_connection_when_it_fails",),
    ),
    Break(
        "stale-store",
        "A store that cannot be read is used as it was for ever.",
        "workers/worker.py",
        "        return time.monotonic() - self._store_seen > self._settings.limits.store_stale_s",
        "        return False",
        (_WORKER + "test_a_store_that_cannot_be_read_is_used_as_it_was_and_then_not",),
    ),
    Break(
        "store-that-fails",
        "A store that cannot be read at first is an empty one.",
        "workers/worker.py",
        '        self._error = StoreError(why, hint="see: coatcheck doctor")',
        "        self._error = LookupError(why)",
        (_WORKER + "test_a_store_that_cannot_be_read_at_first_refuses_until_it_can",),
    ),
    Break(
        "damaged-record",
        "A value that cannot be opened leaves its placeholder as text.",
        "core/filling.py",
        "        value = self._open(secret)\n",
        "        try:\n"
        "            value = self._open(secret)\n"
        "        except Refused:\n"
        "            return None  # type: ignore[return-value]\n",
        ("tests/core/test_filling.py::test_a_value_that_cannot_be_opened_is_the_stores_fault",),
    ),
    Break(
        "broken-policy",
        "A policy that cannot be read takes the place of the good one.",
        "workers/worker.py",
        "        if policy is not None:\n            self._policy = policy\n",
        "        self._policy = policy or Policy()\n        if policy is not None:\n",
        (_WORKER + "test_a_broken_policy_leaves_the_last_good_one_in_force",),
    ),
    Break(
        "malformed",
        "What is a placeholder up to a point is sent as text.",
        "core/filling.py",
        "        if policy.is_text_host(rules, self._request.destination):\n",
        "        if where is not None:\n",
        ("tests/core/test_filling.py::test_what_is_not_allowed_is_refused_and_leaves_no_trace",),
    ),
    Break(
        "unresolved",
        "A placeholder that nobody may use is sent as text.",
        "core/filling.py",
        "        if not verdict.keep:\n",
        "        if verdict.allowed:\n",
        ("tests/core/test_filling.py::test_what_is_not_allowed_is_refused_and_leaves_no_trace",),
    ),
    Break(
        "options",
        "An unsafe option of mitmproxy is taken.",
        "engine/harden.py",
        "        if getattr(opts, name) != safe:",
        "        if getattr(opts, name) is NEEDED:",
        (_HARDEN + "test_an_unsafe_option_is_refused_by_name",),
    ),
    Break(
        "forbidden-options",
        "A compromised key of another mitmproxy is signed with.",
        "engine/harden.py",
        "        if name in opts and getattr(opts, name):",
        "        if name in opts and getattr(opts, name) is None:",
        (_HARDEN + "test_a_compromised_key_is_not_signed_with",),
    ),
    Break(
        "symbol-moved",
        "A symbol of mitmproxy that has moved is not missed at the start.",
        "engine/harden.py",
        "            if not callable(getattr(owner, name, None)):",
        "            if not name:",
        ("tests/engine/test_contract.py::test_a_symbol_that_has_moved_stops_the_start",),
    ),
    Break(
        "symbols-not-looked-for",
        "The proxy does not look whether mitmproxy has what it needs.",
        "engine/server.py",
        "        harden.symbols()\n",
        "",
        (_SERVER + "test_a_mitmproxy_that_does_not_fit_stops_the_start",),
    ),
    Break(
        "connections-per-address",
        "One address may hold any number of connections that say nothing.",
        "engine/admission.py",
        "        if len(same) >= self._per_client:",
        "        if len(same) < 0:",
        (_ADMISSION + "test_the_oldest_of_an_address_makes_room",),
    ),
    Break(
        "connections",
        "There may be any number of connections.",
        "engine/admission.py",
        "        elif len(self._open) >= self._most:",
        "        elif self._most == 0:",
        (
            _ADMISSION + "test_the_oldest_unknown_one_of_all_makes_room",
            _ADMISSION + "test_only_where_every_place_is_a_known_clients_nobody_comes_in",
        ),
    ),
    Break(
        "connections-per-client",
        "One client may hold any number of connections.",
        "engine/admission.py",
        "        if self._known_of[client] >= self._per_client:",
        "        if self._known_of[client] < 0:",
        (_ADMISSION + "test_a_client_has_its_bound_wherever_it_connects_from",),
    ),
    Break(
        "linger-rounds",
        "A refused client that goes on sending stays for ever.",
        "engine/lane.py",
        "        if self._heard and self._rounds < LINGER_ROUNDS:",
        "        if self._heard:",
        (_LANE + "test_a_refused_client_that_never_stops_is_closed_in_the_end",),
    ),
    Break(
        "linger-bytes",
        "A refused client may send any amount.",
        "engine/lane.py",
        "            if answered or self._thrown > LINGER_BYTES:",
        "            if answered:",
        (_LANE + "test_a_refused_client_that_sends_a_lot_is_closed_before_its_time",),
    ),
    Break(
        "pipelined",
        "A client may send ahead any amount.",
        "engine/lane.py",
        "        waiting = self._phase is Phase.WAIT and len(self._buffer) <= MAX_PIPELINED\n",
        "        waiting = self._phase is Phase.WAIT\n",
        (_LANE + "test_a_client_may_send_ahead_up_to_a_limit",),
    ),
    Break(
        "slow-head",
        "A head may drip in for ever.",
        "engine/lane.py",
        "                    if self.deadline is None:",
        "                    if self.deadline is not None:",
        (_LANE + "test_a_head_that_drips_in_is_cut_off_at_its_deadline",),
    ),
    Break(
        "slow-head-again",
        "Each byte of a head that drips in gives it more time.",
        "engine/lane.py",
        "                    if self.deadline is None:",
        "                    if head is None:",
        (_LANE + "test_a_byte_now_and_then_gives_a_head_no_more_time",),
    ),
    Break(
        "slow-handshake",
        "A TLS handshake has all the time.",
        "engine/lane.py",
        "        self.deadline = self._io.now() + self._limits.tls_handshake_timeout_s\n",
        "",
        (_LANE + "test_a_tls_handshake_that_does_not_come_is_cut_off_at_its_deadline",),
    ),
)
