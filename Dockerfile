# This image has not been built yet: CI builds it and waits for its health check.
#
#   docker build -t sendback .
#   docker run -d --name sendback --stop-timeout 25 -v sendback-data:/var/lib/sendback \
#       -p 2525:2525 -p 127.0.0.1:4579:4579 -e SENDBACK_HOSTNAME=mx.example.com sendback
#   docker exec sendback sendback keys create
#
# docs/operations.md, "In a container", explains these commands.

FROM python:3.13-slim AS build
WORKDIR /build
RUN python -m venv /opt/sendback
COPY requirements.lock ./
RUN /opt/sendback/bin/pip install --no-cache-dir --require-hashes -r requirements.lock
COPY pyproject.toml README.md LICENSE ./
COPY src src
RUN /opt/sendback/bin/pip install --no-cache-dir --no-deps .

FROM python:3.13-slim
COPY --from=build /opt/sendback /opt/sendback
RUN useradd --system --uid 10001 --user-group --no-create-home sendback \
    && install -d -m 700 -o sendback -g sendback /var/lib/sendback
# The development key test/test is allowed on loopback only, so it is off.
ENV PATH=/opt/sendback/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    SENDBACK_DATA_DIR=/var/lib/sendback \
    SENDBACK_DEVELOPMENT_KEY=false \
    SENDBACK_HTTP_LISTEN=0.0.0.0:4579 \
    SENDBACK_SMTP_LISTEN=0.0.0.0:2525
USER sendback
WORKDIR /var/lib/sendback
VOLUME /var/lib/sendback
EXPOSE 2525 4579
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=30s --timeout=5s --start-period=20s --start-interval=2s CMD \
    ["python", "-c", "from urllib.request import urlopen; urlopen('http://127.0.0.1:4579/healthz', timeout=4)"]
ENTRYPOINT ["sendback"]
CMD ["serve"]
