package server

import (
	"io"

	examples "github.com/grpc-ecosystem/grpc-gateway/v2/examples/internal/proto/examplepb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
)

// NewAll makes a server of all example services: those that the examples have a server for, and all others, whose answers hold
// what the requests held in fields of the same numbers.
func NewAll() *grpc.Server {
	s := grpc.NewServer(grpc.UnknownServiceHandler(echo))
	examples.RegisterEchoServiceServer(s, newEchoServer())
	examples.RegisterFlowCombinationServer(s, newFlowCombinationServer())
	examples.RegisterExcessBodyServiceServer(s, newExcessBodyServer())
	examples.RegisterNonStandardServiceServer(s, newNonStandardServer())
	examples.RegisterUnannotatedEchoServiceServer(s, newUnannotatedEchoServer())
	abe := newABitOfEverythingServer()
	examples.RegisterABitOfEverythingServiceServer(s, abe)
	examples.RegisterStreamServiceServer(s, abe)
	examples.RegisterResponseBodyServiceServer(s, newResponseBodyServer())
	return s
}

func echo(_ any, stream grpc.ServerStream) error {
	name, _ := grpc.MethodFromServerStream(stream)
	service, method, _ := cut(name)
	found, err := protoregistry.GlobalFiles.FindDescriptorByName(protoreflect.FullName(service))
	if err != nil {
		return status.Errorf(codes.Unimplemented, "unknown service %s", service)
	}
	desc := found.(protoreflect.ServiceDescriptor).Methods().ByName(protoreflect.Name(method))
	if desc == nil {
		return status.Errorf(codes.Unimplemented, "unknown method %s", name)
	}
	input, err := protoregistry.GlobalTypes.FindMessageByName(desc.Input().FullName())
	if err != nil {
		return err
	}
	output, err := protoregistry.GlobalTypes.FindMessageByName(desc.Output().FullName())
	if err != nil {
		return err
	}
	for {
		in, out := input.New().Interface(), output.New().Interface()
		if err := stream.RecvMsg(in); err == io.EOF {
			break
		} else if err != nil {
			return err
		}
		bytes, err := proto.Marshal(in)
		if err != nil {
			return err
		}
		if err := proto.Unmarshal(bytes, out); err != nil {
			proto.Reset(out)
		}
		if err := stream.SendMsg(out); err != nil {
			return err
		}
		if !desc.IsStreamingServer() {
			break
		}
	}
	return nil
}

func cut(name string) (service, method string, ok bool) {
	for at := len(name) - 1; at > 0; at-- {
		if name[at] == '/' {
			return name[1:at], name[at+1:], true
		}
	}
	return "", "", false
}
