# The image of `figa` and of the deployments' runs: no torch, and no root. Embedded models are downloaded into a volume.
#
#   docker build -t figa-pipeline .
#   docker run --rm -v figa-models:/models -v "$PWD/out:/work/out" figa-pipeline figa build --source hh-rlhf
#
# With API models, add -e OPENAI_API_KEY. For training, or a Dask or Ray cluster:  --build-arg EXTRAS=local,train
FROM python:3.11-slim

ARG EXTRAS=local
# llama.cpp's library wants OpenMP, which the slim image lacks; any version will do.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends libgomp1 \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --create-home --uid 1000 figa \
    && install --directory --owner figa /work /work/out /models

COPY . /src
# The wheel holds all that a run needs, so the source stays out of the image's last layer.
RUN pip install --no-cache-dir "/src[${EXTRAS}]" && rm -rf /src

# HF_HOME: models from the Hub. FIGA_CACHE: embedded ones. FIGA_HOME: what prefect.yaml's relative folders are below.
ENV HF_HOME=/models/hf \
    FIGA_CACHE=/models/figa \
    FIGA_HOME=/work \
    PYTHONUNBUFFERED=1
USER 1000
WORKDIR /work
VOLUME /models
# No entry point: Prefect's workers start their own command.
CMD ["figa", "--help"]
