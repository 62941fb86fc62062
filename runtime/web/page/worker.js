// The model of a page, in a worker: page.py puts it behind chargen.js, into one script.

import { ChargenError, load } from "../chargen.js";

/** @import { Model, TextState } from "../chargen.js" */
/** @typedef {{character: string, bits: number | null, top: [string, number][]}} Place */

const SHOWN = 10; // likeliest characters that are told of each place
// a text is written no faster than an eye can follow it: so many characters in so many milliseconds
const [TOGETHER, PACE] = [60, 40];

/** @type {Model | null} */
let model = null;
/** @type {AbortController | null} */
let writing = null;

/**
 * The likeliest characters at a place, and the surprise of one in bits, null for none and where it is
 * not known.
 * @type {(found: Map<string, number>, character?: string) => {bits: number | null, top: [string, number][]}}
 */
function look(found, character) {
  const own = character === undefined ? undefined : found.get(character);
  return { bits: own === undefined ? null : -Math.log2(own), top: [...found].slice(0, SHOWN) };
}

/** Open a model, and run the test vectors of its certificate here. @param {ArrayBuffer} bytes */
async function open(bytes) {
  const opened = await load(bytes);
  model = opened;
  const { config, training, parity, properties, sha256 } = opened.artifact;
  /** @type {number | null} */
  let difference = null;
  for (const { tokens, stride, logits } of parity.vectors) {
    const hidden = new Float32Array(config.num_layers * config.hidden_size);
    let found = new Float32Array(0);
    for (const token of tokens) found = opened.engine.step(hidden, token);
    logits.forEach((/** @type {number} */ logit, /** @type {number} */ place) => {
      difference = Math.max(difference ?? 0, Math.abs(logit - found[place * stride]));
    });
  }
  const plainly = (/** @type {any} */ value) =>
    JSON.parse(JSON.stringify(value, (_, each) => (typeof each === "bigint" ? String(each) : each)));
  return { ...plainly({ config, training, parity, properties, sha256 }), size: bytes.byteLength, difference };
}

/**
 * Write a text, or several of documents; the places are sent as they come, those of the start first.
 * @param {{start: string, length: number}} asked and sampling options
 */
async function write({ start, length, ...options }) {
  const opened = /** @type {Model} */ (model);
  const state = opened.state(start, options); // refuses what is not known before anything is shown
  writing?.abort();
  const mine = (writing = new AbortController());
  const begin = readPlaces(start, opened.state());
  postMessage({ kind: "places", places: begin, begin: true });
  /** @type {Place[]} */
  const drawn = []; // which the stream may hold back, as they may become a stop string
  const draw = state.draw.bind(state);
  state.draw = () => {
    const found = state.probabilities();
    const character = draw();
    drawn.push({ character, ...look(found, character) });
    return character;
  };
  const begun = performance.now();
  let [made, waited, sent] = [0, 0, begun];
  /** @type {Place[]} */
  let places = [];
  let stream;
  for (;;) {
    stream = opened.resume(state, { length: length - made, signal: mine.signal });
    for await (const _ of stream) {
      places.push(/** @type {Place} */ (drawn.shift()));
      made++;
      const now = performance.now();
      if (places.length < TOGETHER && now - sent < PACE) continue;
      postMessage({ kind: "places", places });
      await new Promise((resolve) => setTimeout(resolve, Math.max(0, PACE - now + sent)));
      [places, sent] = [[], performance.now()];
      waited += sent - now;
    }
    made++; // the end counts too, so that many empty texts have an end
    if (stream.ended !== "end" || made >= length) break;
    // a model of documents goes on with the next one, which begins as the first did
    state.feed(start);
    places.push(/** @type {Place} */ (drawn.shift()), ...begin);
  }
  postMessage({ kind: "places", places });
  if (writing === mine) writing = null;
  return {
    next: look(state.probabilities()).top,
    made: made - 1,
    ended: stream.ended,
    seed: String(state.seed),
    milliseconds: performance.now() - begun - waited,
  };
}

/**
 * The places of a text that is given; the state reads it.
 * @param {string} text
 * @param {TextState} state before any text
 * @returns {Place[]}
 */
function readPlaces(text, state) {
  const { vocabulary } = /** @type {Model} */ (model);
  return Array.from(text, (character, place) => {
    // the first character of running text is read from nothing, so there is nothing to say of it
    const told =
      place || vocabulary.end >= 0 ? look(state.probabilities(), character) : { bits: null, top: [] };
    state.feed(vocabulary.knownPart(character, "skip"));
    return { character, ...told };
  });
}

/** Score a text. @param {{text: string}} asked */
function score({ text }) {
  const opened = /** @type {Model} */ (model);
  const found = opened.score(text, { unknown: "skip" });
  const { character_log_probabilities, bits_per_char, perplexity, characters, unknown } = found;
  const { end } = opened.vocabulary;
  const state = opened.state();
  const places = readPlaces(text, state);
  const next = look(state.probabilities()).top;
  if (end >= 0) places.push({ character: "", bits: null, top: next });
  const scored = end >= 0 ? places : places.slice(1);
  scored.forEach((place, index) => (place.bits = -character_log_probabilities[index] / Math.LN2));
  return { places, next: end >= 0 ? [] : next, bits_per_char, perplexity, characters, unknown };
}

/** @type {{[call: string]: (given: any) => any}} */
const CALLS = { open, write, score, stop: () => writing?.abort() };

onmessage = async ({ data: { id, call, given } }) => {
  try {
    postMessage({ kind: "answer", id, answer: await CALLS[call](given) });
  } catch (error) {
    postMessage({
      kind: "answer",
      id,
      error: error instanceof ChargenError ? error.message : `this is a defect: ${error}`,
    });
  }
};
