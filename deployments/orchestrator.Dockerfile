# Server, cpu and control workers, and what deploys: everything without torch.
#   docker build -f deployments/orchestrator.Dockerfile -t join-clips-orchestrator .
FROM python:3.11-slim-bookworm

ENV PYTHONUNBUFFERED=1 PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 \
    JOIN_CLIPS_HOME=/join-clips

# Volumes are mounted on these two, and take their owner.
RUN useradd --create-home --uid 1000 join \
    && install -d -o join -g join /home/join/.prefect /home/join/.cache /home/join/.cache/join-clips
WORKDIR /join-clips

COPY pyproject.toml constraints.txt ./
RUN pip install -c constraints.txt .

COPY prefect.yaml ./
COPY splice splice
COPY tasks tasks
COPY flows flows
COPY deployments deployments

# By number, so that Kubernetes can see that it is not root.
USER 1000

# The port at which a worker that was started with --with-healthcheck says that it still polls.
HEALTHCHECK --interval=30s --timeout=10s --start-period=60s \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8080/health', timeout=5)"]

CMD ["prefect", "worker", "start", "--pool", "cpu", "--limit", "4", "--with-healthcheck"]
