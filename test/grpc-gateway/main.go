// Command grpc-gateway is what the gateway is compared with: grpc-gateway as its users start it, in front of the services of
// test/protos; and a server of letters that is fast enough to measure gateways by.
//
//	grpc-gateway gateway <host:port of a gRPC server>
//	grpc-gateway letters
//
// Either listens on a free port of 127.0.0.1, says which on its first line, and ends with its standard input.
package main

import (
	"context"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"

	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/grpclog"

	pb "chat4all/test/grpc-gateway/gen/transcoding/v1"
)

func main() {
	// What a client sends wrong is no news here.
	grpclog.SetLoggerV2(grpclog.NewLoggerV2(io.Discard, io.Discard, io.Discard))
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	var serve func() error
	switch {
	case len(os.Args) == 3 && os.Args[1] == "gateway":
		serve, err = gateway(listener, os.Args[2])
	case len(os.Args) == 2 && os.Args[1] == "letters":
		serve = letters(listener)
	default:
		log.Fatal("usage: grpc-gateway gateway <host:port> | grpc-gateway letters")
	}
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(listener.Addr().(*net.TCPAddr).Port)
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		os.Exit(0)
	}()
	log.Fatal(serve())
}

func gateway(listener net.Listener, backend string) (func() error, error) {
	// Until 2.33 it passed on what came as Grpc-Metadata-*, as the API of the hub does.
	mux := runtime.NewServeMux(runtime.WithLegacyHeaderMatching())
	options := []grpc.DialOption{grpc.WithTransportCredentials(insecure.NewCredentials())}
	for _, register := range []func(context.Context, *runtime.ServeMux, string, []grpc.DialOption) error{
		pb.RegisterEchoServiceHandlerFromEndpoint,
		pb.RegisterForeignServiceHandlerFromEndpoint,
		pb.RegisterStreamServiceHandlerFromEndpoint,
		pb.RegisterBodyServiceHandlerFromEndpoint,
		pb.RegisterFieldServiceHandlerFromEndpoint,
		pb.RegisterLetterServiceHandlerFromEndpoint,
	} {
		if err := register(context.Background(), mux, backend, options); err != nil {
			return nil, err
		}
	}
	return func() error { return http.Serve(listener, mux) }, nil
}
