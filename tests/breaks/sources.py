"""Values from elsewhere and the way through an upstream proxy: each break takes one check away."""

from __future__ import annotations

from tests.breaks.change import Break

_SOURCED = "tests/store/sources/test_sourced.py::"
_CONTRACT = "tests/store/sources/test_source_contract.py::"
_VAULT = "tests/store/sources/test_vault.py::"
_GCP = "tests/store/sources/test_gcp.py::"
_AZURE = "tests/store/sources/test_azure.py::"
_LOCAL = "tests/store/sources/test_local.py::"
_FILE = "tests/test_sourcefile.py::"
_SOURCING = "tests/workers/test_sourcing.py::"
_VIA = "tests/engine/test_via.py::"

G1 = (
    Break(
        "sourced-domains",
        "A sourced value opens for other domains than those it was declared with.",
        "store/sources/sourced.py",
        "    return one.version == other.version and one.domains == other.domains",
        "    return one.version == other.version",
        (_SOURCED + "test_other_domains_are_a_new_version_and_the_former_ones_are_still_scrubbed",),
    ),
    Break(
        "sourced-name",
        "A row of the store that has the id of a sourced secret opens its value.",
        "store/sources/sourced.py",
        "    if one is None or (one.id, one.name) != (other.id, other.name):",
        "    if one is None or one.id != other.id:",
        (_SOURCED + "test_a_row_of_the_store_that_poses_as_a_sourced_secret_opens_nothing",),
    ),
    Break(
        "sources-mode",
        "A sources file is read that others may write.",
        "sourcefile.py",
        "    if status.st_mode & _OTHERS:",
        "    if status.st_mode & 0:",
        (_FILE + "test_one_that_others_can_write_is_not",),
    ),
    Break(
        "sources-taken",
        "A sourced secret takes the place of a stored one of the same name.",
        "store/sources/combined.py",
        "        self._sourced = sourced.without(self.refused)",
        "        self._sourced = sourced",
        (_SOURCED + "test_a_stored_secret_goes_before_one_that_a_reader_would_take_for_it",),
    ),
    Break(
        "via-address",
        "The upstream proxy is asked for the name, where it should be for the vetted address.",
        "engine/via.py",
        "        for target in [host] if self._proxy.by_name else addresses:",
        "        for target in [host]:",
        (_VIA + "test_the_vetted_address_is_asked_for_and_the_name_is_verified",),
    ),
    Break(
        "via-status",
        "Whatever an upstream proxy answers is a tunnel.",
        "engine/via.py",
        "    if not 200 <= status < 300:",
        "    if not 100 <= status < 600:",
        (_VIA + "test_an_answer_that_is_no_tunnel_is_none",),
    ),
)

G2 = (
    Break(
        "source-cause",
        "The error of a source is raised with the words of the library.",
        "store/sources/reading.py",
        "        raise SourceError(judge(error)) from None",
        "        raise SourceError(judge(error)) from error",
        (
            _CONTRACT + "test_no_error_shows_anything_of_value_or_credential",
            _GCP + "test_no_word_of_a_library_gets_out",
            _AZURE + "test_no_word_of_a_library_gets_out",
        ),
    ),
    Break(
        "vault-redirect",
        "The token of a Vault goes along with a redirect.",
        "store/sources/vault.py",
        "            allow_redirects=False,",
        "            allow_redirects=True,",
        (_VAULT + "test_a_token_does_not_follow_a_redirect",),
    ),
    Break(
        "cloud-redirect",
        "The token of a cloud goes along with a redirect.",
        "store/sources/rest.py",
        '"verify": self._ca, "allow_redirects": False}',
        '"verify": self._ca, "allow_redirects": True}',
        (
            _GCP + "test_a_token_does_not_follow_a_redirect",
            _AZURE + "test_a_token_does_not_follow_a_redirect",
        ),
    ),
    Break(
        "cloud-verify",
        "A cloud need not prove its name.",
        "store/sources/rest.py",
        '"verify": self._ca, "allow_redirects": False}',
        '"verify": False, "allow_redirects": False}',
        (_GCP + "test_a_server_that_cannot_prove_its_name_gets_no_token",),
    ),
    Break(
        "cloud-proxy",
        "A cloud is asked through the proxy of the environment.",
        "store/sources/rest.py",
        "        self.trust_env = False",
        "        self.trust_env = True",
        (
            _GCP + "test_no_proxy_of_the_environment_is_used",
            _AZURE + "test_no_proxy_of_the_environment_is_used",
        ),
    ),
    Break(
        "gcp-checksum",
        "A payload that was damaged on its way is taken.",
        "store/sources/gcp.py",
        "    if crc32c(value) != told:",
        "    if False:",
        (_GCP + "test_a_payload_whose_checksum_does_not_fit_is_not_taken",),
    ),
    Break(
        "azure-resource",
        "A host that poses as a vault is given a token for something else.",
        "store/sources/azure.py",
        """    if host != domain and not ("." in domain and host.endswith("." + domain)):""",
        """    if False:""",
        (
            _AZURE + "test_a_token_is_asked_for_the_vaults_own_domain",
            _AZURE + "test_a_vault_that_wants_a_token_for_something_else_gets_none",
        ),
    ),
    Break(
        "command-environment",
        "A command gets the whole environment of the worker.",
        "store/sources/local.py",
        "                env=environ,",
        "                env=dict(self._environ),",
        (_LOCAL + "test_a_command_gets_no_variables_but_those_that_are_named",),
    ),
    Break(
        "source-cleartext",
        "A source is asked over http:// on another machine.",
        "sourcetable.py",
        '    if parts.scheme == "http" and host not in LOOPBACK:',
        '    if parts.scheme == "http" and not host:',
        (_FILE + "test_a_mistake_is_told_and_no_value_with_it",),
    ),
)

G4 = (
    Break(
        "sourced-former",
        "The former value of a sourced secret is not scrubbed.",
        "store/sources/sourced.py",
        "        return [kept.secret for kept in self._kept if kept.replaced_at >= horizon]",
        "        return []",
        (_SOURCED + "test_a_new_value_is_a_new_version_and_the_former_is_scrubbed_within_grace",),
    ),
    Break(
        "sourced-gone",
        "What a stored secret of the same name put out of force is not scrubbed any longer.",
        "store/sources/sourced.py",
        "        return SourcedView(self._revision, found, [*self._kept, *gone], self._horizon)",
        "        return SourcedView(self._revision, found, self._kept, self._horizon)",
        (_SOURCED + "test_a_stored_secret_goes_before_one_that_a_reader_would_take_for_it",),
    ),
)

G5 = (
    Break(
        "sourced-stale",
        "A value is sent however long its source has been silent.",
        "core/filling.py",
        "        if secret.withheld:",
        "        if False:",
        (_SOURCING + "test_a_source_that_is_silent_for_too_long_refuses_that_secret_alone",),
    ),
    Break(
        "sources-broken",
        "Without a usable sources file requests go on, and nothing of it is scrubbed.",
        "workers/worker.py",
        "            return NoView(str(error))",
        "            return self._view",
        (_SOURCING + "test_broken_from_the_start_it_refuses_everything_until_it_is_mended",),
    ),
    Break(
        "source-taken-back",
        "A value that was taken back is sent like one whose source is out.",
        "store/sources/sourced.py",
        "    if entry.failure in TAKEN_BACK:",
        "    if False:",
        (_SOURCED + "test_what_was_taken_back_is_not_sent_from_then_on",),
    ),
)
