# Two images from one file: `service` (no torch in it) and `worker`.
#   docker build --target service --tag foveate-service .
#   docker build --target worker  --tag foveate-worker .
# No system packages: the wheels of rasterio, openslide-bin and torch bring their libraries.
ARG PYTHON_IMAGE=docker.io/library/python:3.11-slim-bookworm

FROM ${PYTHON_IMAGE} AS base
LABEL org.opencontainers.image.title="Foveate" \
    org.opencontainers.image.description="Foveated segmentation of images too large for any screen" \
    org.opencontainers.image.version="0.1.0" \
    org.opencontainers.image.licenses="Apache-2.0"
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONPATH=/app \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    HOME=/tmp \
    FOVEATE_DATA=/data
# The volume takes its owner from this directory, so that a process without rights may write into it.
RUN groupadd --gid 10001 foveate \
    && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /tmp --shell /usr/sbin/nologin foveate \
    && install --directory --owner 10001 --group 10001 /data
WORKDIR /app

FROM base AS python
COPY pyproject.toml constraints.txt ./
COPY deploy/group.py deploy/
RUN python3 -m venv /opt/venv

FROM python AS service-python
RUN python deploy/group.py service > requirements.txt \
    && pip install --no-cache-dir --no-compile -c constraints.txt -r requirements.txt

FROM python AS worker-python
# Another index may serve torch for the CPU alone, at a fifth of the size; the version stays that of constraints.txt.
ARG TORCH_INDEX_URL=""
RUN python deploy/group.py worker > requirements.txt \
    && pip install --no-cache-dir --no-compile -c constraints.txt -r requirements.txt \
        ${TORCH_INDEX_URL:+--extra-index-url "${TORCH_INDEX_URL}"}

# The Python environment comes before the code, so that a change of code pushes a layer of kilobytes.
FROM base AS service
COPY --from=service-python /opt/venv /opt/venv
COPY --chmod=755 deploy/foveate /usr/local/bin/foveate
COPY LICENSE ./
COPY bundles/ bundles/
COPY foveate/ foveate/
COPY raster/ raster/
COPY jobs/ jobs/
COPY service/ service/
USER 10001:10001
EXPOSE 8000
ENV FOVEATE_HOST=0.0.0.0 \
    FOVEATE_PORT=8000
HEALTHCHECK --interval=15s --timeout=5s --start-period=30s --retries=4 \
    CMD ["python", "-c", "import os, urllib.request as r; r.urlopen('http://127.0.0.1:' + os.environ['FOVEATE_PORT'] + '/readyz', timeout=4)"]
ENTRYPOINT ["foveate"]
CMD ["serve"]

FROM base AS worker
COPY --from=worker-python /opt/venv /opt/venv
COPY --chmod=755 deploy/foveate /usr/local/bin/foveate
COPY LICENSE ./
COPY bundles/ bundles/
COPY foveate/ foveate/
COPY raster/ raster/
COPY model/ model/
COPY jobs/ jobs/
COPY worker/ worker/
USER 10001:10001
# A worker that dies ends its container and an engine that hangs loses its lease; what is left to see is the queue.
HEALTHCHECK --interval=30s --timeout=10s --start-period=60s --retries=4 \
    CMD ["python", "-c", "import jobs.settings as s, jobs.valkey as v; v.connect(s.StateSettings().valkey_url).ping()"]
ENTRYPOINT ["foveate"]
CMD ["worker"]
