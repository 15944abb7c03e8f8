# syntax=docker/dockerfile:1
# lorad for NVIDIA GPUs. `docker build -f docker/cuda.Dockerfile --build-arg CUDA_COMPUTE_CAP=90 -t lorad:cuda .`
# cuBLAS, cuRAND and NVRTC are linked dynamically, so the runtime is a `-runtime-` image; the driver is the host's.
ARG BUILD_IMAGE=nvidia/cuda:12.9.1-devel-ubuntu24.04
ARG RUNTIME_IMAGE=nvidia/cuda:12.9.1-runtime-ubuntu24.04

FROM ${BUILD_IMAGE} AS chef
ARG RUST_VERSION=1.95.0
ENV RUSTUP_HOME=/usr/local/rustup CARGO_HOME=/usr/local/cargo PATH=/usr/local/cargo/bin:$PATH
SHELL ["/bin/bash", "-o", "pipefail", "-c"]
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates curl g++ make \
    && rm -rf /var/lib/apt/lists/*
RUN curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs \
    | sh -s -- -y --no-modify-path --profile minimal --default-toolchain "${RUST_VERSION}"
RUN cargo install cargo-chef --version 0.1.73 --locked
WORKDIR /src

FROM chef AS plan
COPY . .
RUN cargo chef prepare --recipe-path recipe.json

FROM chef AS build
# No GPU is there to ask while an image is built: 80 is Ampere (A100), 86 and 89 its and Ada's smaller cards, 90 Hopper.
ARG CUDA_COMPUTE_CAP=80
ENV CUDA_COMPUTE_CAP=${CUDA_COMPUTE_CAP} \
    CARGO_PROFILE_RELEASE_DEBUG=0 CARGO_PROFILE_RELEASE_STRIP=debuginfo
COPY --from=plan /src/recipe.json .
RUN cargo chef cook --release --locked --features cuda --bin lorad --recipe-path recipe.json
COPY . .
RUN cargo build --release --locked --features cuda --bin lorad \
    && install -D target/release/lorad /out/lorad

FROM ${RUNTIME_IMAGE} AS runtime
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates \
    && rm -rf /var/lib/apt/lists/*
RUN groupadd --gid 65532 lorad \
    && useradd --uid 65532 --gid 65532 --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin lorad \
    && install -d -o 65532 -g 65532 /adapters /cache
COPY --from=build --chown=0:0 --chmod=0555 /out/lorad /usr/local/bin/lorad
# KServe's pods call their server by this name.
RUN ln -s lorad /usr/local/bin/vllm
ARG VERSION=dev
ARG REVISION=unknown
LABEL org.opencontainers.image.title="lorad" \
      org.opencontainers.image.description="One frozen base model, many LoRA adapters, one batch; for NVIDIA GPUs" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
ENV LORAD_ADAPTERS=/adapters HF_HOME=/cache/hf
USER 65532:65532
EXPOSE 8000
VOLUME ["/adapters", "/cache"]
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s --start-period=300s --retries=3 \
    CMD ["/usr/local/bin/lorad", "healthcheck"]
ENTRYPOINT ["/usr/local/bin/lorad"]
CMD ["serve"]
