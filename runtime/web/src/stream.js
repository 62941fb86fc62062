// A text as it is written; what may become a stop string is held back.

import { StopFinder } from "./sampling.js";

/** @import { TextState } from "./state.js" */

const PIECE = 64; // steps between two looks at whether a text was cancelled
const BREATH = 12; // milliseconds that a stream works before others have their turn

/** The characters of one text as they are written; `for await` gives others their turn meanwhile. */
export class TextStream {
  /** @type {"end" | "stop" | "length" | "cancelled" | null} */ #ended = null;
  #closed = false;
  /** @type {AbortSignal | undefined} */ #signal;
  /** @type {Generator<string | null, void>} */ #pieces;

  /**
   * Made by `Model.stream` and `Model.resume`.
   * @param {TextState} state
   * @param {[number[], string]} start tokens to be fed first, and what is then kept back
   * @param {number | bigint} length
   * @param {AbortSignal | undefined} signal
   */
  constructor(state, start, length, signal) {
    this.state = state;
    this.#signal = signal;
    const { stop } = state.options;
    const characters = this.#write(start, length);
    this.#pieces = stop.length ? this.#untilStop(characters, stop) : characters;
  }

  /** The seed of its draws; with the same seed the text can be made again. */
  get seed() {
    return this.state.seed;
  }

  /**
   * Why the text ended: at its `end`, a `stop` string, its `length`, or `cancelled` by `close` or the
   * signal. Null while it runs.
   */
  get ended() {
    return this.#ended;
  }

  /** End the stream: no character comes any more. */
  close() {
    this.#closed = true;
    this.#ended ??= "cancelled";
  }

  /** All characters, without giving others their turn. */
  *[Symbol.iterator]() {
    for (const piece of this.#pieces) if (piece) yield piece;
  }

  async *[Symbol.asyncIterator]() {
    let begun = performance.now();
    try {
      for (const piece of this.#pieces) {
        if (piece) yield piece;
        if (performance.now() - begun < BREATH) continue;
        await breathe();
        begun = performance.now();
      }
    } finally {
      this.#ended ??= "cancelled"; // left in the middle
    }
  }

  /** @type {(start: [number[], string], length: number | bigint) => Generator<string | null, void>} */
  *#write([start, rest], length) {
    const over = () => this.#closed || this.#signal?.aborted;
    for (let begin = 0; begin < start.length; begin += PIECE) {
      if (over()) return void (this.#ended ??= "cancelled");
      this.state.feedTokens(start.slice(begin, begin + PIECE));
      yield null;
    }
    if (rest) this.state.keepBack(rest);
    for (let made = 0; made < length; made++) {
      if (over()) return void (this.#ended ??= "cancelled");
      const character = this.state.draw();
      if (!character) return void (this.#ended ??= "end");
      yield character;
    }
    this.#ended ??= "length";
  }

  /** @type {(pieces: Iterable<string | null>, stops: string[]) => Generator<string | null, void>} */
  *#untilStop(pieces, stops) {
    const finder = new StopFinder(stops);
    /** @type {string[]} */
    const held = []; // what may yet become a stop string
    for (const piece of pieces) {
      if (!piece) {
        yield null;
        continue;
      }
      held.push(piece);
      finder.read(piece);
      if (finder.ended) {
        yield* held.slice(0, held.length - finder.ended);
        this.#ended = "stop";
        return;
      }
      yield* held.splice(0, held.length - finder.pending);
    }
    yield* held;
  }
}

/** Give others their turn, sooner than a timer would. @returns {Promise<void>} */
function breathe() {
  return new Promise((resolve) => {
    const { port1, port2 } = new MessageChannel();
    port1.onmessage = () => {
      port1.close();
      resolve();
    };
    port2.postMessage(0);
  });
}
