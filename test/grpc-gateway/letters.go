package main

import (
	"context"
	"fmt"
	"net"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/timestamppb"

	pb "chat4all/test/grpc-gateway/gen/transcoding/v1"
)

const most = 100

type letterServer struct {
	pb.UnimplementedLetterServiceServer
	letters []*pb.Letter
}

func letters(listener net.Listener) func() error {
	server := &letterServer{}
	sent := timestamppb.New(time.Date(2026, time.November, 25, 16, 5, 30, 123_000_000, time.UTC))
	for seq := range most {
		server.letters = append(server.letters, &pb.Letter{
			LetterId:  fmt.Sprintf("018f3c1e-7b2a-7c4d-9e5f-%012d", seq),
			ThreadId:  "018f3c1e-0000-7c4d-9e5f-0a1b2c3d4e5f",
			Seq:       int64(seq),
			From:      &pb.Person{PersonId: "018f3c1e-1111-7c4d-9e5f-0a1b2c3d4e5f", Name: "user1"},
			To:        []string{"018f3c1e-2222-7c4d-9e5f-0a1b2c3d4e5f"},
			Ways:      []pb.Way{pb.Way_WAY_ROAD, pb.Way_WAY_AIR},
			Content:   &pb.Content{Text: "A letter of the length that letters have: some words, and no more than that."},
			Status:    pb.LetterStatus_LETTER_STATUS_DELIVERED,
			CreatedAt: sent,
			UpdatedAt: sent,
		})
	}
	grpcServer := grpc.NewServer()
	pb.RegisterLetterServiceServer(grpcServer, server)
	return func() error { return grpcServer.Serve(listener) }
}

func (s *letterServer) SendLetter(_ context.Context, letter *pb.SendLetterRequest) (*pb.SendLetterResponse, error) {
	return &pb.SendLetterResponse{Status: pb.LetterStatus_LETTER_STATUS_ACCEPTED, LetterId: letter.GetLetterId()}, nil
}

func (s *letterServer) GetLetter(context.Context, *pb.GetLetterRequest) (*pb.Letter, error) {
	return s.letters[0], nil
}

func (s *letterServer) ListLetters(_ context.Context, page *pb.ListLettersRequest) (*pb.ListLettersResponse, error) {
	limit := min(max(int(page.GetLimit()), 0), most)
	return &pb.ListLettersResponse{ThreadId: page.GetThreadId(), Letters: s.letters[:limit], Total: most}, nil
}
