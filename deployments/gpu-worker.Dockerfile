# The warm GPU worker. CUDA comes with torch; of the host it needs the driver, through NVIDIA's container toolkit.
#   docker build -f deployments/gpu-worker.Dockerfile -t join-clips-gpu-worker .
FROM python:3.11-slim-bookworm

# Weights are found and kept in JOIN_CLIPS_MODELS: a volume.
ENV PYTHONUNBUFFERED=1 PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 \
    NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility \
    JOIN_CLIPS_HOME=/join-clips JOIN_CLIPS_MODELS=/weights

RUN useradd --create-home --uid 1000 join && install -d -o join /weights
WORKDIR /join-clips

COPY pyproject.toml constraints.txt ./
RUN pip install -c constraints.txt ".[gpu]"

COPY prefect.yaml ./
COPY splice splice
COPY tasks tasks
COPY flows flows
COPY deployments deployments

# By number, so that Kubernetes can see that it is not root.
USER 1000
VOLUME /weights

HEALTHCHECK --interval=30s --timeout=10s --start-period=120s \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8080/health', timeout=5)"]

CMD ["python", "-m", "deployments.gpu_worker", "--pool", "gpu", "--limit", "1", "--with-healthcheck"]
