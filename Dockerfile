# docker build -t router-extproc --build-arg TORCH_INDEX=<CPU> .    CPU
# docker build -t router-extproc --build-arg DEVICE=cuda .          NVIDIA GPU; the driver comes from the node
# <CPU> is the index of PyTorch's CPU wheels, as the selector on pytorch.org shows it. Without it the default index serves,
# whose torch for Linux needs the CUDA libraries: they are installed too, gigabytes that a CPU does not use.
ARG PYTHON=3.11.14-slim-bookworm

FROM python:${PYTHON} AS build
ARG DEVICE=cpu
ARG TORCH_INDEX=
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN python -m venv /opt/venv
ENV PATH=/opt/venv/bin:$PATH
WORKDIR /src
COPY requirements.lock ./
# The version is the lock's, which the linter cannot see.
# hadolint ignore=DL3013
RUN set -eu; \
    case "$DEVICE,${TORCH_INDEX:+index}" in \
      cpu,index) pip install --no-deps --index-url "$TORCH_INDEX" "$(grep '^torch==' requirements.lock)" ;; \
      cpu,|cuda,*) pip install -c requirements.lock "$(grep '^torch==' requirements.lock)" ;; \
      *) echo "DEVICE is $DEVICE; it must be cpu or cuda" >&2; exit 1 ;; \
    esac; \
    pip install --no-deps -r requirements.lock; \
    pip check
COPY pyproject.toml README.md LICENSE NOTICE ./
COPY router_extproc router_extproc
RUN pip install --no-deps .

FROM python:${PYTHON}
ARG DEVICE=cpu
LABEL org.opencontainers.image.title="router-extproc" \
      org.opencontainers.image.description="An Envoy external processor that picks the model" \
      org.opencontainers.image.licenses="Apache-2.0" \
      io.router-extproc.device="${DEVICE}"
COPY --from=build /opt/venv /opt/venv
COPY models/router-minilm /opt/models/router-minilm
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    HF_HUB_OFFLINE=1 \
    HF_HOME=/tmp/huggingface \
    TRITON_CACHE_DIR=/tmp/triton \
    TORCHINDUCTOR_CACHE_DIR=/tmp/inductor \
    ROUTER_EXTPROC_MODEL_DIR=/opt/models/router-minilm \
    ROUTER_EXTPROC_CONFIG=/etc/router-extproc \
    ROUTER_EXTPROC_LISTEN=0.0.0.0:50051 \
    ROUTER_EXTPROC_ADMIN=0.0.0.0:9090
USER 65532:65532
WORKDIR /tmp
EXPOSE 50051 9090
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s --start-period=120s --retries=3 \
  CMD ["python", "-c", "import os, urllib.request; urllib.request.urlopen('http://127.0.0.1:' + os.environ['ROUTER_EXTPROC_ADMIN'].rpartition(':')[2] + '/readyz', timeout=2)"]
ENTRYPOINT ["router-extproc"]
CMD ["serve"]
