// From logits to tokens, as section "From logits to a token" of ARTIFACT.md says.

/** @import { Json } from "./errors.js" */

const WORD = (1n << 64n) - 1n;

/**
 * Four draws in [0, 1) of a seed and row: Philox-4x64-10 (Salmon et al., SC11).
 * @param {bigint} seed
 * @param {bigint} row
 * @param {number} block draws 4 block … 4 block + 3
 */
export function uniformDraws(seed, row, block) {
  let [a, b, c, d] = [BigInt(block) + 1n, 0n, 0n, 0n];
  let [key, other] = [seed, row];
  for (let round = 0; round < 10; round++) {
    const [low, high] = [0xd2e7470ee14c6c93n * a, 0xca5a826395121157n * c];
    [a, b, c, d] = [(high >> 64n) ^ b ^ key, high & WORD, (low >> 64n) ^ d ^ other, low & WORD];
    [key, other] = [(key + 0x9e3779b97f4a7c15n) & WORD, (other + 0xbb67ae8584caa73bn) & WORD];
  }
  return [a, b, c, d].map((word) => Number(word >> 11n) * 2 ** -53);
}

/** Draws tokens and keeps what the next draw needs: draws made, tokens seen. */
export class Sampler {
  /**
   * @param {Json} options all of them, a seed too
   * @param {number} size of the vocabulary
   * @param {bigint} row
   */
  constructor(options, size, row) {
    this.options = options;
    this.row = row;
    this.drawn = 0;
    this.seen = options.repetition_penalty === 1 ? null : new Uint8Array(size);
    this.weights = new Float64Array(size);
    this.draws = [0];
    this.block = -1;
  }

  /** @param {Iterable<number>} tokens that count as used, for the repetition penalty */
  see(tokens) {
    if (this.seen) for (const token of tokens) this.seen[token] = 1;
  }

  /**
   * The next token; the draw is counted, and the token counts as seen.
   * @param {Float32Array} logits
   */
  sample(logits) {
    const token = this.choose(logits);
    this.drawn++;
    if (this.seen) this.seen[token] = 1;
    return token;
  }

  /** @param {Float32Array} logits */
  choose(logits) {
    const { weights, options } = this;
    weights.set(logits);
    if (this.seen) penalise(weights, this.seen, options.repetition_penalty);
    if (options.temperature === 0) return weights.indexOf(largest(weights));
    const block = Math.floor(this.drawn / 4);
    if (block !== this.block) this.draws = uniformDraws(options.seed, this.row, (this.block = block));
    exponentiate(weights, options);
    let total = 0;
    for (let i = 0; i < weights.length; i++) total = weights[i] += total;
    const point = this.draws[this.drawn % 4] * total;
    let token = 0;
    while (weights[token] <= point) token++;
    return token;
  }
}

/** @param {Float64Array} numbers */
function largest(numbers) {
  let most = numbers[0];
  for (let i = 1; i < numbers.length; i++) if (numbers[i] > most) most = numbers[i];
  return most;
}

/** @type {(logits: Float64Array, seen: Uint8Array, penalty: number) => void} */
function penalise(logits, seen, penalty) {
  for (let i = 0; i < logits.length; i++)
    if (seen[i]) logits[i] = logits[i] > 0 ? logits[i] / penalty : logits[i] * penalty;
}

/**
 * Logits become unnormalised probabilities, in place; filtered tokens become 0.
 * @param {Float64Array} weights
 * @param {Json} options
 */
function exponentiate(weights, { temperature, top_k, top_p, min_p }) {
  const size = weights.length;
  if (temperature !== 1) for (let i = 0; i < size; i++) weights[i] /= temperature;
  const kth = top_k > 0 && top_k < size ? weights.slice().sort()[size - Number(top_k)] : -Infinity;
  const most = largest(weights);
  for (let i = 0; i < size; i++) weights[i] = weights[i] < kth ? 0 : Math.exp(weights[i] - most);
  if (top_p < 1) keepTopP(weights, top_p);
  if (min_p > 0) for (let i = 0; i < size; i++) if (weights[i] < min_p) weights[i] = 0;
}

/** The model's own probabilities: no temperature, no filters. @param {Float32Array} logits */
export function softmax(logits) {
  const weights = Float64Array.from(logits);
  exponentiate(weights, { temperature: 1, top_k: 0, top_p: 1, min_p: 0 });
  const total = weights.reduce((sum, weight) => sum + weight, 0);
  return weights.map((weight) => weight / total);
}

/** @type {(weights: Float64Array, p: number) => void} */
function keepTopP(weights, p) {
  const order = byWeight(weights);
  let total = 0;
  const sums = order.map((token) => (total += weights[token]));
  // the first always stays
  for (let rank = 1; rank < order.length; rank++) if (sums[rank - 1] >= p * total) weights[order[rank]] = 0;
}

/** @param {Float64Array} weights @returns {number[]} tokens, the heaviest first, ties by index */
export const byWeight = (weights) =>
  Array.from(weights.keys()).sort((a, b) => weights[b] - weights[a] || a - b);

/** Looks for stop strings in a text that comes character by character (Knuth, Morris, Pratt). */
export class StopFinder {
  /** @param {string[]} stops */
  constructor(stops) {
    this.stops = stops.map((stop) => {
      const characters = [...stop];
      const shorter = [0]; // by length of what matched: that of its longest ending that is a beginning
      for (let at = 1, length = 0; at < characters.length; at++) {
        while (length && characters[at] !== characters[length]) length = shorter[length - 1];
        if (characters[at] === characters[length]) length++;
        shorter.push(length);
      }
      return { characters, shorter, matched: 0 };
    });
    this.pending = 0; // characters at the end of the text that may yet become a stop string
    this.ended = 0; // length of the longest stop string that the text ends with
  }

  /** @param {string} character the next one of the text */
  read(character) {
    this.pending = this.ended = 0;
    for (const stop of this.stops) {
      const { characters, shorter } = stop;
      while (stop.matched && character !== characters[stop.matched]) stop.matched = shorter[stop.matched - 1];
      if (character === characters[stop.matched]) stop.matched++;
      this.pending = Math.max(this.pending, stop.matched);
      if (stop.matched === characters.length) this.ended = Math.max(this.ended, stop.matched);
    }
  }
}
