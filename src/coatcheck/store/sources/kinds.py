"""The adapter of each kind. What needs a library is imported when a source of it is declared."""

from __future__ import annotations

from coatcheck.sourcefile import SourceConfig
from coatcheck.store.sources.local import Commands, Environment, Files
from coatcheck.store.sources.port import Failure, Source, SourceError


def make(config: SourceConfig) -> Source:
    """The adapter for *config*.

    Raises:
        SourceError: NO_LIBRARY.
    """
    match config.kind:
        case "env":
            return Environment()
        case "file":
            return Files()
        case "command":
            return Commands(config.options, config.timeout_s)
    try:
        if config.kind == "vault":
            from coatcheck.store.sources.vault import Vault

            return Vault(config.options, config.timeout_s)
        if config.kind == "gcp":
            from coatcheck.store.sources.gcp import Gcp

            return Gcp(config.options, config.timeout_s)
        if config.kind == "azure":
            from coatcheck.store.sources.azure import Azure

            return Azure(config.options, config.timeout_s)
        from coatcheck.store.sources.aws import Aws

        return Aws(config.options, config.timeout_s)
    except ImportError:
        raise SourceError(Failure.NO_LIBRARY) from None
