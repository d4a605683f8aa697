import { InterceptingCall, type Interceptor } from '@grpc/grpc-js';

/** Backpressure for a stream from a backend: asks for messages one by one, and for none while paused. By itself grpc-js would buffer 16. */
export class FlowControl {
  #isPaused = false;
  #next: (() => void) | undefined;

  readonly interceptor: Interceptor = (options, nextCall) => {
    const call = new InterceptingCall(nextCall(options));
    const read = call.startRead.bind(call);
    call.startRead = () => {
      if (this.#isPaused) this.#next = read;
      else read();
    };
    return call;
  };

  pause(): void {
    this.#isPaused = true;
  }

  resume(): void {
    this.#isPaused = false;
    const next = this.#next;
    this.#next = undefined;
    next?.();
  }
}
