# One image for every role: docker build -t rutile . && docker run -p 4000:4000 rutile
FROM rust:1.95-bookworm AS build
RUN apt-get update \
 && apt-get install -y --no-install-recommends build-essential clang libclang-dev pkg-config \
 && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY . .
ENV CARGO_TARGET_DIR=/target
RUN cargo build --profile dist --locked --workspace --bin rutile

FROM debian:bookworm-slim
RUN useradd --system --create-home --home-dir /var/lib/rutile rutile
COPY --from=build /target/dist/rutile /usr/local/bin/rutile
USER rutile
WORKDIR /var/lib/rutile
VOLUME /var/lib/rutile
# MySQL protocol, HTTP status, placement driver (clients, members), store (gRPC, HTTP status).
EXPOSE 4000 10080 2379 2380 20160 20180
STOPSIGNAL SIGTERM
ENTRYPOINT ["rutile"]
CMD ["playground", "--host", "0.0.0.0", "--data-dir", "/var/lib/rutile/data"]
