import { InterceptingCall, type Interceptor } from '@grpc/grpc-js';

/** Asks for messages one by one, and for none while the client has enough. By itself grpc-js would gather 16 of them. */
export class Pace {
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
