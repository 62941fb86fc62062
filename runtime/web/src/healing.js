// What may follow a text whose last run was taken back, and the next character of any unit.

import { softmax } from "./sampling.js";
import { TokenDecoder } from "./vocabulary.js";

/** @import { Engine } from "./engine.js" */
/** @import { Vocabulary } from "./vocabulary.js" */

const FOLLOWED = 256; // tokens that are read at most to find the next character ...
const LEFT_OUT = 1e-6; // ... as long as more probability than this stands behind those not read

/** @typedef {{weight: number, hidden: Float32Array, token: number, rest: string, partial: number[]}} Path */

/**
 * Logits, minus infinity for tokens that do not go on as a run does.
 * @type {(vocabulary: Vocabulary, logits: Float32Array, rest: string) => Float32Array}
 */
export const masked = (vocabulary, logits, rest) =>
  logits.map((logit, token) => (vocabulary.goesOn(token, rest) ? logit : -Infinity));

/**
 * The model's probabilities of the next character, likeliest first; the end is the empty text. Tokens
 * count for the first character that they bring; one that brings none yet is read, and what follows
 * it counts, so that all may come to a little less than 1.
 * @param {Engine} engine
 * @param {Vocabulary} vocabulary
 * @param {{hidden: Float32Array, logits: Float32Array, rest: string, partial: number[]}} place
 * @returns {[string, number][]}
 */
export function nextCharacters(engine, vocabulary, { hidden, logits, rest, partial }) {
  /** @type {Map<string, number>} */
  const found = new Map();
  /** @type {Path[]} */
  const waiting = [];
  const decoder = new TokenDecoder(vocabulary);
  let [weight, left] = [1, 0];
  for (let followed = 0; ; followed++) {
    const probabilities = softmax(rest ? masked(vocabulary, logits, rest) : logits);
    vocabulary.texts.forEach((text, token) => {
      const part = probabilities[token] * weight;
      if (!part) return;
      decoder.restart(partial);
      const brought = rest ? text.slice(rest.length) : text && decoder.feed(token);
      const path = rest ? text.length <= rest.length : text && !brought;
      if (path) {
        waiting.push({
          weight: part,
          hidden,
          token,
          rest: rest.slice(text.length),
          partial: decoder.partial,
        });
        left += part;
      } else {
        const [character = ""] = brought;
        found.set(character, (found.get(character) ?? 0) + part);
      }
    });
    if (!waiting.length || followed === FOLLOWED || left <= LEFT_OUT) break;
    let likeliest = 0;
    for (let i = 1; i < waiting.length; i++) if (waiting[i].weight > waiting[likeliest].weight) likeliest = i;
    const [path] = waiting.splice(likeliest, 1);
    ({ weight, rest, partial } = path);
    left -= weight;
    hidden = path.hidden.slice();
    logits = engine.step(hidden, path.token);
  }
  return [...found].sort((a, b) => b[1] - a[1]);
}
