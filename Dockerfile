# The proxy in a container: no compiler, no pip, no root, nothing secret in any layer. Keys and
# store live in the volume /var/lib/coatcheck, made once by:
#   docker run --rm -v coatcheck:/var/lib/coatcheck coatcheck init
# The root file system may be read-only: only that volume is written to. Give it a tmpfs on /tmp
# where the store is SQLite, which puts large sorts there.
#
# A tag moves. To build from one base for good, name it by its digest:
#   docker build --build-arg PYTHON=python@sha256:... .
ARG PYTHON=python:3.13-slim-bookworm
FROM ${PYTHON} AS build

ENV PIP_NO_CACHE_DIR=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PYTHONDONTWRITEBYTECODE=1

# What the compiled part needs. A version of today is gone from the mirrors tomorrow.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends binutils gcc libc6-dev \
    && rm -rf /var/lib/apt/lists/*

WORKDIR /build
COPY constraints.txt ./
RUN python -m venv tools \
    && tools/bin/pip install -c constraints.txt hatchling

# Sources of values that need a library (pyproject.toml). That of `aws` would add some 25 MB.
ARG EXTRAS=[vault]
COPY pyproject.toml hatch_build.py ./
COPY scripts/sbom.py scripts/sbom.py
COPY src src
# The program's own environment gets no pip: the one in tools fills it. The list of what is in it
# goes along, for scanners. Tests and debug symbols of libraries are a third of their size.
RUN tools/bin/pip wheel --no-build-isolation --no-deps --wheel-dir dist . \
    && python -m venv --without-pip /opt/coatcheck \
    && tools/bin/pip --python /opt/coatcheck/bin/python install --no-compile \
        -c constraints.txt "$(echo dist/*.whl)${EXTRAS}" \
    && /opt/coatcheck/bin/python scripts/sbom.py /opt/coatcheck/sbom.cdx.json \
    && find /opt/coatcheck/lib -type d -name tests -prune -exec rm -r {} + \
    && find /opt/coatcheck/lib -name "*.so" -exec strip --strip-debug {} + \
    && /opt/coatcheck/bin/python -m compileall -q /opt/coatcheck/lib


FROM ${PYTHON}

# A number, so that Kubernetes can tell that it is not root.
RUN groupadd --system --gid 10001 coatcheck \
    && useradd --system --uid 10001 --gid 10001 --home-dir /var/lib/coatcheck --no-create-home \
        --shell /usr/sbin/nologin coatcheck \
    && install -d -o 10001 -g 10001 -m 0700 /var/lib/coatcheck \
    && install -d -o 10001 -g 10001 -m 0755 /trust
COPY --from=build /opt/coatcheck /opt/coatcheck

# The admin side stays on loopback.
ENV PATH=/opt/coatcheck/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    COATCHECK_HOME=/var/lib/coatcheck \
    COATCHECK_LISTEN=0.0.0.0:8080

ARG VERSION=unknown
ARG REVISION=unknown
LABEL org.opencontainers.image.title="coatcheck" \
    org.opencontainers.image.description="Forward proxy that swaps placeholders for secrets" \
    org.opencontainers.image.version="${VERSION}" \
    org.opencontainers.image.revision="${REVISION}"

USER 10001:10001
WORKDIR /var/lib/coatcheck
VOLUME /var/lib/coatcheck
EXPOSE 8080
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=20s --retries=3 CMD ["coatcheck", "status"]
ENTRYPOINT ["coatcheck"]
CMD ["serve"]
