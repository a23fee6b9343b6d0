# The router as one static binary on an empty image.
FROM golang:1.26-bookworm AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
ARG VERSION=dev
RUN CGO_ENABLED=0 go build -trimpath -ldflags "-s -w -X weiche/internal/telemetry.version=${VERSION}" -o /out/router ./cmd/router \
 && mkdir -p /out/data && chown 65532:65532 /out/data

FROM gcr.io/distroless/static-debian12:nonroot
COPY --from=build /out/router /router
COPY --from=build --chown=65532:65532 /out/data /data
COPY config /config
USER 65532:65532
VOLUME /data
EXPOSE 8080 8081
ENTRYPOINT ["/router"]
CMD ["serve", "--config", "/config", "--data", "/data"]
