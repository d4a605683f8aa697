/**
 * To be preloaded (`node --import`): moves the clock of the process by CLOCK_SKEW milliseconds, as on a machine whose clock is wrong.
 * What is measured with `performance.now()`, and timers, go on as they did.
 */

const skew = Number(process.env['CLOCK_SKEW']);
const RealDate = Date;

class SkewedDate extends RealDate {
  static override now(): number {
    return RealDate.now() + skew;
  }

  constructor(...given: unknown[]) {
    if (given.length === 0) super(RealDate.now() + skew);
    else super(...(given as [number]));
  }
}

globalThis.Date = SkewedDate as DateConstructor;
