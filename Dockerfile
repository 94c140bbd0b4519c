# The service in an image of its own, built from this tree: no privileges, and nothing of it is written to but the cache.
# docs/docker.md says how to run it.
ARG PYTHON=3.13

FROM python:${PYTHON}-slim AS build
WORKDIR /src
COPY pyproject.toml setup.cfg README.md LICENSE ./
COPY regcache ./regcache
COPY twisted ./twisted
RUN ["python", "-m", "venv", "/opt/regcache"]
RUN ["/opt/regcache/bin/pip", "install", "--no-cache-dir", ".[auth,cli,metrics]"]
# Twisted writes down which plugins there are, while it may.
RUN ["/opt/regcache/bin/twistd", "--help"]
RUN ["/opt/regcache/bin/pip", "uninstall", "--yes", "pip"]

FROM python:${PYTHON}-slim
# A fixed number, so that volumes can be made for it beforehand.
RUN groupadd --gid 8650 regcache \
 && useradd --uid 8650 --gid 8650 --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin regcache \
 && install --directory --owner 8650 --group 8650 --mode 0700 /var/cache/regcache
COPY --from=build /opt/regcache /opt/regcache
ENV PATH=/opt/regcache/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    CACHE_DIRECTORY=/var/cache/regcache \
    REGCACHE_LISTEN=tcp:8650
USER 8650:8650
VOLUME ["/var/cache/regcache"]
EXPOSE 8650
STOPSIGNAL SIGTERM
# By its socket in the cache directory, whatever its ports, passwords and networks are.
HEALTHCHECK --interval=30s --timeout=10s --start-period=60s CMD ["regcache", "status"]
ENTRYPOINT ["regcache", "serve"]
