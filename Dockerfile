# The environment of every rule as an image, for Kubernetes (profiles/kubernetes) and for --sdm apptainer: the packages of
# the lock, and nothing of the workflow itself, which Snakemake brings along. See docs/cluster.md.
#
#     docker build -t REGISTRY/foldvote:latest . && docker push REGISTRY/foldvote:latest
FROM python:3.11-slim-bookworm

# libgomp: LightGBM asks for it.
RUN apt-get update \
    && apt-get install -y --no-install-recommends libgomp1 \
    && rm -rf /var/lib/apt/lists/*

COPY requirements.lock /tmp/requirements.lock
RUN pip install --no-cache-dir --no-deps -r /tmp/requirements.lock && rm /tmp/requirements.lock

# Nobody's home folder is writable in an image; caches go where anybody may write.
ENV HOME=/tmp XDG_CACHE_HOME=/tmp/cache MPLCONFIGDIR=/tmp/matplotlib HF_HUB_OFFLINE=1 \
    NO_ALBUMENTATIONS_UPDATE=1 ORT_DISABLE_TELEMETRY=1
