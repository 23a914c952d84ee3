# The proxy in a container: no compiler, no pip, no root, nothing secret in any layer. Keys and
# store live in the volume /var/lib/coatcheck, made once by:
#   docker run --rm -v coatcheck:/var/lib/coatcheck coatcheck init
FROM python:3.13-slim-bookworm AS build

ENV PIP_NO_CACHE_DIR=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PYTHONDONTWRITEBYTECODE=1

WORKDIR /build
COPY constraints.txt ./
RUN python -m venv tools \
    && tools/bin/pip install -c constraints.txt hatchling

COPY pyproject.toml ./
COPY src src
# The program's own environment gets no pip: the one in tools fills it.
RUN tools/bin/pip wheel --no-build-isolation --no-deps --wheel-dir dist . \
    && python -m venv --without-pip /opt/coatcheck \
    && tools/bin/pip --python /opt/coatcheck/bin/python install -c constraints.txt dist/*.whl \
    && /opt/coatcheck/bin/python -m compileall -q /opt/coatcheck/lib


FROM python:3.13-slim-bookworm

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

USER 10001:10001
WORKDIR /var/lib/coatcheck
VOLUME /var/lib/coatcheck
EXPOSE 8080
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=20s --retries=3 CMD ["coatcheck", "status"]
ENTRYPOINT ["coatcheck"]
CMD ["serve"]
