// Command chat4all-examples serves the example services of grpc-gateway itself. It is built inside the module of grpc-gateway, since
// nobody else may import them.
//
//	chat4all-examples server
//	chat4all-examples gateway <host:port of that server>
//	chat4all-examples descriptors <file>
//
// The first two listen on a free port of 127.0.0.1, say which on their first line, and end with their standard input. The last writes
// the descriptors of all the examples with their imports as a FileDescriptorSet.
package main

import (
	"context"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"

	pb "github.com/grpc-ecosystem/grpc-gateway/v2/examples/internal/proto/examplepb"
	standalone "github.com/grpc-ecosystem/grpc-gateway/v2/examples/internal/proto/standalone"
	"github.com/grpc-ecosystem/grpc-gateway/v2/examples/internal/server"
	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/grpclog"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/descriptorpb"
)

func main() {
	grpclog.SetLoggerV2(grpclog.NewLoggerV2(io.Discard, io.Discard, io.Discard))
	if len(os.Args) == 3 && os.Args[1] == "descriptors" {
		if err := descriptors(os.Args[2]); err != nil {
			log.Fatal(err)
		}
		return
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	var serve func() error
	switch {
	case len(os.Args) == 3 && os.Args[1] == "gateway":
		serve, err = gateway(listener, os.Args[2])
	case len(os.Args) == 2 && os.Args[1] == "server":
		all := server.NewAll()
		serve = func() error { return all.Serve(listener) }
	default:
		log.Fatal("usage: chat4all-examples server | gateway <host:port> | descriptors <file>")
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
	// The integration tests of the examples do so, too: their server reads metadata that clients choose.
	mux := runtime.NewServeMux(runtime.WithLegacyHeaderMatching())
	options := []grpc.DialOption{grpc.WithTransportCredentials(insecure.NewCredentials())}
	// Of two routes that match the same requests the one that comes later goes first.
	for _, register := range []func(context.Context, *runtime.ServeMux, string, []grpc.DialOption) error{
		pb.RegisterUseAllOfForRefsServiceHandlerFromEndpoint,
		pb.RegisterLoginServiceHandlerFromEndpoint,
		pb.RegisterVisibilityRuleEchoServiceHandlerFromEndpoint,
		pb.RegisterVisibilityRuleInternalEchoServiceHandlerFromEndpoint,
		pb.RegisterFooServiceHandlerFromEndpoint,
		pb.RegisterFoo2ServiceHandlerFromEndpoint,
		pb.RegisterServiceAHandlerFromEndpoint,
		pb.RegisterServiceBHandlerFromEndpoint,
		pb.RegisterServiceCHandlerFromEndpoint,
		pb.RegisterEnumWithSingleValueServiceHandlerFromEndpoint,
		pb.RegisterProto3FieldSemanticsServiceHandlerFromEndpoint,
		pb.RegisterOpaqueEcommerceServiceHandlerFromEndpoint,
		pb.RegisterWrappersServiceHandlerFromEndpoint,
		pb.RegisterCamel_CaseServiceHandlerFromEndpoint,
		pb.RegisterCamelCaseServiceNameHandlerFromEndpoint,
		pb.RegisterSnakeEnumServiceHandlerFromEndpoint,
		// From here on in the order of the examples' own gateway.
		pb.RegisterEchoServiceHandlerFromEndpoint,
		standalone.RegisterUnannotatedEchoServiceHandlerFromEndpoint,
		pb.RegisterStreamServiceHandlerFromEndpoint,
		pb.RegisterABitOfEverythingServiceHandlerFromEndpoint,
		pb.RegisterFlowCombinationHandlerFromEndpoint,
		pb.RegisterExcessBodyServiceHandlerFromEndpoint,
		pb.RegisterNonStandardServiceHandlerFromEndpoint,
		pb.RegisterResponseBodyServiceHandlerFromEndpoint,
	} {
		if err := register(context.Background(), mux, backend, options); err != nil {
			return nil, err
		}
	}
	return func() error { return http.Serve(listener, mux) }, nil
}

func descriptors(path string) error {
	var set descriptorpb.FileDescriptorSet
	seen := map[string]bool{}
	var add func(protoreflect.FileDescriptor)
	add = func(file protoreflect.FileDescriptor) {
		if seen[file.Path()] {
			return
		}
		seen[file.Path()] = true
		imports := file.Imports()
		for i := range imports.Len() {
			add(imports.Get(i).FileDescriptor)
		}
		set.File = append(set.File, protodesc.ToFileDescriptorProto(file))
	}
	var examples []protoreflect.FileDescriptor
	protoregistry.GlobalFiles.RangeFiles(func(file protoreflect.FileDescriptor) bool {
		if strings.HasPrefix(file.Path(), "examples/internal/proto/") {
			examples = append(examples, file)
		}
		return true
	})
	// As compilers of protos have them; the registry has no order.
	slices.SortFunc(examples, func(a, b protoreflect.FileDescriptor) int { return strings.Compare(a.Path(), b.Path()) })
	for _, file := range examples {
		add(file)
	}
	bytes, err := proto.Marshal(&set)
	if err != nil {
		return err
	}
	return os.WriteFile(path, bytes, 0o644)
}
