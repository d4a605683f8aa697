# One image for all services, the gateway and the migration: what runs is said by the command (docker-compose.yml).
#
#   docker build --tag chat4all .
#   docker build --tag chat4all-minio --target minio .

# --- MinIO, of which nobody publishes images any more: the version that dev/engines/minio.ts pins ---------------------------

FROM golang:1.24.8-bookworm AS minio-build
ENV CGO_ENABLED=0
RUN go install -trimpath -ldflags '-s -w' github.com/minio/minio@v0.0.0-20260212201848-7aac2a2c5b7c

FROM busybox:1.37.0-musl AS minio
RUN mkdir /data && chown 1000:1000 /data
COPY --from=minio-build /go/bin/minio /usr/local/bin/minio
USER 1000:1000
VOLUME /data
EXPOSE 9000
ENV MINIO_BROWSER=off MINIO_UPDATE=off MINIO_API_STALE_UPLOADS_EXPIRY=72h
HEALTHCHECK --interval=5s --timeout=3s --start-period=30s \
  CMD ["wget", "-q", "-O", "/dev/null", "http://127.0.0.1:9000/minio/health/ready"]
ENTRYPOINT ["minio"]
CMD ["server", "--address", ":9000", "--certs-dir", "/tmp/certificates", "/data"]

# --- The hub ---------------------------------------------------------------------------------------------------------------

FROM node:24.21.0-bookworm-slim AS packages
WORKDIR /app
COPY package.json package-lock.json ./
# Without what only a laptop needs: a PostgreSQL (optional packages) and a Node of its own (fetched by a script).
RUN npm ci --omit=dev --omit=optional --ignore-scripts --no-audit --no-fund
# What is in it (CycloneDX). npm would miss what is only for developers.
RUN npm pkg delete devDependencies && rm package-lock.json && npm sbom --sbom-type=application --sbom-format=cyclonedx > sbom.cdx.json

FROM node:24.21.0-bookworm-slim
ENV NODE_ENV=production
WORKDIR /app
COPY --from=packages /app/node_modules ./node_modules
COPY --from=packages /app/sbom.cdx.json ./
COPY . .
# A volume gets its owner from here.
RUN mkdir /mail /compile-cache && chown node:node /mail /compile-cache
USER node
# The code as V8 has compiled it, for all that begins here: a start takes half of the CPU time then, and so does each health check.
ENV NODE_COMPILE_CACHE=/compile-cache
RUN node --input-type=module --eval "import { serviceNames } from './services/names.ts'; \
  for (const name of serviceNames) await import('./services/' + name + '/index.ts'); \
  for (const file of ['gateway/index.ts', 'lib/rpc/health.ts']) await import('./' + file); \
  process.exit()"
EXPOSE 8000 50051
HEALTHCHECK --interval=5s --timeout=5s --start-period=60s CMD ["node", "bin/health.ts"]
ENTRYPOINT ["node"]
CMD ["gateway/main.ts"]
