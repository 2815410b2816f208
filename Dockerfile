# The server with its page, on CPU:  docker build -t seem . && docker run --rm -p 8000:8000 -e SEEM_TOKEN=secret seem
# The page has to be built first (cd web && npm ci && npm run build), or it is left out.
FROM python:3.11-slim AS build
WORKDIR /build
COPY pyproject.toml constraints.txt README.md LICENSE NOTICE ./
COPY src src
COPY examples/photos examples/photos
RUN python -m venv /venv \
 && /venv/bin/pip install --no-cache-dir -c constraints.txt --extra-index-url https://download.pytorch.org/whl/cpu \
    ".[serve]"

FROM python:3.11-slim
COPY --from=build /venv /venv
RUN useradd --create-home --uid 10001 seem
USER seem
WORKDIR /home/seem
ENV PATH=/venv/bin:$PATH PYTHONUNBUFFERED=1
EXPOSE 8000
HEALTHCHECK --start-period=60s --interval=15s --timeout=5s \
    CMD ["python", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:8000/health/ready', timeout=4)"]
# SIGTERM drains: give it at least the time of --drain before it is killed (docker stop --time 40).
ENTRYPOINT ["seem", "serve", "--host", "0.0.0.0"]
