# An image with feldspar as its command, for processors or for NVIDIA's GPUs. docs/install.md tells
# how it is built and run.
#
#   docker build --tag local/feldspar .
#   docker build --tag local/feldspar:cuda --build-arg BASE=cuda .

ARG BASE=cpu

FROM python:3.12-slim-bookworm AS cpu

FROM nvidia/cuda:12.8.1-base-ubuntu24.04 AS cuda
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends python3 python3-venv \
    && rm -rf /var/lib/apt/lists/*

# hadolint ignore=DL3006
FROM ${BASE} AS feldspar
RUN python3 -m venv /opt/feldspar
ENV PATH=/opt/feldspar/bin:$PATH \
    PYTHONUNBUFFERED=1

# What feldspar needs, in a layer that changes only with pyproject.toml: an empty package brings it.
# TORCH_INDEX is an index of builds of torch, such as those for processors, which are much smaller.
ARG EXTRAS=quickstart
ARG TORCH_INDEX=
WORKDIR /opt/source
COPY pyproject.toml README.md LICENSE ./
COPY src/feldspar/__init__.py src/feldspar/
COPY src/feldspar/evaluate/programs/humaneval/LICENSE src/feldspar/evaluate/programs/humaneval/
COPY src/feldspar/evaluate/tasks/bundled/LICENSE-* src/feldspar/evaluate/tasks/bundled/
# hadolint ignore=DL3013
RUN if [ -n "${TORCH_INDEX}" ]; then pip install --no-cache-dir --index-url "${TORCH_INDEX}" torch; fi \
    && pip install --no-cache-dir ".[${EXTRAS}]"

COPY src src
RUN pip install --no-cache-dir --no-deps --force-reinstall .

# Commands write below the folder that they are given in, and into the cache.
RUN useradd --uid 10001 --create-home feldspar \
    && install --directory --mode 1777 /workspace
USER 10001
WORKDIR /workspace
ENV XDG_CACHE_HOME=/workspace/.cache
ENTRYPOINT ["feldspar"]
CMD ["--help"]
