# The image of govi-cache: docker build --tag govi-cache .  (docs/install.md#in-a-container)
#
# Debian's Python, and an environment whose packages are those of requirements-release.txt, checked by their hashes.
FROM debian:trixie-slim AS build
RUN apt-get update && apt-get install --yes --no-install-recommends python3-venv ca-certificates
WORKDIR /source
COPY requirements-release.txt ./
RUN python3 -m venv /opt/govi-cache \
    && /opt/govi-cache/bin/pip install --no-cache-dir --only-binary :all: --require-hashes --requirement requirements-release.txt
# hatchling builds the package in an environment of its own, which is not left in /opt.
COPY pyproject.toml README.md LICENSE ./
COPY govi_server govi_server
COPY twisted twisted
# twistd --help writes the cache of plugins, which the container's user may not.
RUN /opt/govi-cache/bin/pip install --no-cache-dir --no-deps . \
    && /opt/govi-cache/bin/twistd --help >/dev/null \
    && /opt/govi-cache/bin/pip uninstall --yes pip \
    && python3 -m compileall -q /opt/govi-cache

FROM debian:trixie-slim
# TLS to gateways and the index of GTFS needs certificates of authorities.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends python3 ca-certificates \
    && rm -rf /var/lib/apt/lists/* /var/cache/apt/* /var/log/*.log /var/log/apt \
    && install --directory --owner 10001 --group 10001 --mode 0700 /var/lib/govi-cache
COPY --from=build /opt/govi-cache /opt/govi-cache
ENV PATH=/opt/govi-cache/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 CACHE_DIRECTORY=/var/lib/govi-cache
USER 10001:10001
# The only directory that is written, besides /tmp: snapshot, statistics log, planning from GTFS.
WORKDIR /var/lib/govi-cache
VOLUME /var/lib/govi-cache
EXPOSE 8080
HEALTHCHECK --interval=30s --timeout=5s --start-period=15s \
    CMD ["python", "-c", "from urllib.request import urlopen; urlopen('http://127.0.0.1:8081/health', timeout=4)"]
ENTRYPOINT ["govi-cache"]
CMD ["serve"]
