import io.grpc.ForwardingServerCall.SimpleForwardingServerCall;
import io.grpc.HandlerRegistry;
import io.grpc.Metadata;
import io.grpc.MethodDescriptor;
import io.grpc.ServerCall;
import io.grpc.ServerCallHandler;
import io.grpc.ServerInterceptor;
import io.grpc.ServerMethodDefinition;
import io.grpc.Status;
import io.grpc.netty.shaded.io.grpc.netty.NettyServerBuilder;
import io.grpc.stub.ServerCalls;
import java.io.ByteArrayInputStream;
import java.io.IOException;
import java.io.InputStream;
import java.io.UncheckedIOException;
import java.net.InetSocketAddress;

/**
 * A server of grpc-java on Netty, on a free port that it prints. `/echo.Echo/Echo` answers with the bytes that it was sent, `Refuse` with an
 * error, `Wait` never. The header `x-ask` comes back as `x-answer`, in the headers and in the trailers. Ends with its standard input.
 */
public final class EchoServer {
  private static final Metadata.Key<String> ASK = Metadata.Key.of("x-ask", Metadata.ASCII_STRING_MARSHALLER);
  private static final Metadata.Key<String> ANSWER = Metadata.Key.of("x-answer", Metadata.ASCII_STRING_MARSHALLER);

  private static final MethodDescriptor.Marshaller<byte[]> BYTES =
      new MethodDescriptor.Marshaller<>() {
        @Override
        public InputStream stream(byte[] value) {
          return new ByteArrayInputStream(value);
        }

        @Override
        public byte[] parse(InputStream stream) {
          try {
            return stream.readAllBytes();
          } catch (IOException error) {
            throw new UncheckedIOException(error);
          }
        }
      };

  private static ServerMethodDefinition<byte[], byte[]> method(
      String name, ServerCalls.UnaryMethod<byte[], byte[]> answer) {
    var description =
        MethodDescriptor.<byte[], byte[]>newBuilder(BYTES, BYTES)
            .setType(MethodDescriptor.MethodType.UNARY)
            .setFullMethodName(name)
            .build();
    return ServerMethodDefinition.create(description, ServerCalls.asyncUnaryCall(answer));
  }

  private static final ServerInterceptor ANSWERS =
      new ServerInterceptor() {
        @Override
        public <A, B> ServerCall.Listener<A> interceptCall(
            ServerCall<A, B> call, Metadata asked, ServerCallHandler<A, B> next) {
          var value = asked.get(ASK);
          return next.startCall(
              new SimpleForwardingServerCall<>(call) {
                @Override
                public void sendHeaders(Metadata headers) {
                  if (value != null) headers.put(ANSWER, value);
                  super.sendHeaders(headers);
                }

                @Override
                public void close(Status status, Metadata trailers) {
                  if (value != null) trailers.put(ANSWER, value);
                  super.close(status, trailers);
                }
              },
              asked);
        }
      };

  public static void main(String[] arguments) throws Exception {
    var methods =
        new HandlerRegistry() {
          @Override
          public ServerMethodDefinition<?, ?> lookupMethod(String name, String authority) {
            return switch (name) {
              case "echo.Echo/Echo" -> method(name, (request, answers) -> {
                answers.onNext(request);
                answers.onCompleted();
              });
              case "echo.Echo/Refuse" -> method(name, (request, answers) ->
                  answers.onError(Status.UNAUTHENTICATED.withDescription("não, 100 %").asRuntimeException()));
              case "echo.Echo/Wait" -> method(name, (request, answers) -> {});
              default -> null;
            };
          }
        };
    var server =
        NettyServerBuilder.forAddress(new InetSocketAddress("127.0.0.1", 0))
            .fallbackHandlerRegistry(methods)
            .intercept(ANSWERS)
            .maxConcurrentCallsPerConnection(100)
            .build()
            .start();
    System.out.println("port " + server.getPort());
    while (System.in.read() >= 0) continue;
    server.shutdownNow();
  }
}
