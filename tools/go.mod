// Generators that are written in Go, pinned. dev/client builds them: `npm run generate`.
module chat4all/tools

go 1.19

require github.com/grpc-ecosystem/protoc-gen-grpc-gateway-ts v1.1.2
