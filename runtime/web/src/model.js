// A loaded model: write, score, look at what may come.

import { Engine } from "./engine.js";
import { ArtifactError, OptionError, countCharacters, shown } from "./errors.js";
import { parseArtifact } from "./file.js";
import {
  DEFAULT_LENGTH,
  checkNames,
  checkOptions,
  checkPolicy,
  checkWhole,
  refuseOthers,
} from "./options.js";
import { kindOf } from "./records.js";
import { TextState, restoreState } from "./state.js";
import { TextStream } from "./stream.js";
import { LIMITS } from "./tables.js";
import { Vocabulary } from "./vocabulary.js";

/** @import { Artifact } from "./file.js" */
/** @import { SamplingOptions } from "./options.js" */
/** @import { StreamOptions } from "./options.js" */
/** @import { TextOptions } from "./options.js" */
/** @import { WritingOptions } from "./options.js" */

/** Log probability of a text. */
export class Score {
  /**
   * @param {number[]} scores nats, one for each token that was scored
   * @param {number} unknown how many of them the model does not know
   * @param {number[]} sizes how many characters each is
   * @param {number} characters that were scored
   */
  constructor(scores, unknown, sizes, characters) {
    /** Nats, one for each token that was scored, which of the unit char is a character. */
    this.log_probabilities = Float64Array.from(scores);
    /** How many of them the model does not know: each counts as likely as the least likely one. */
    this.unknown = unknown;
    /** How many characters each token is; of bytes, those are one that begin a character. */
    this.sizes = sizes;
    /** How many were scored. */
    this.characters = characters;
    /** Log probability of all of them together, nats (0 or less). */
    this.total = scores.reduce((sum, score) => sum + score, 0);
  }

  /**
   * Nats of each character, to show them: those of a token are spread over its characters, those of
   * bytes that go on with a character are added to it.
   */
  get character_log_probabilities() {
    /** @type {number[]} */
    const nats = [];
    this.sizes.forEach((size, token) => {
      const own = this.log_probabilities[token];
      for (let i = 0; i < size; i++) nats.push(own / size);
      if (!size && nats.length) nats[nats.length - 1] += own;
    });
    return nats;
  }

  /** Mean negative log probability, nats: the loss of training. */
  get nats_per_char() {
    return -this.total / this.characters;
  }

  /** The same in bits. */
  get bits_per_char() {
    return this.nats_per_char / Math.LN2;
  }

  /** Exp of `nats_per_char`: between so many characters the model hesitates on average. */
  get perplexity() {
    return Math.exp(this.nats_per_char);
  }
}

/** A loaded model. No call changes it. */
export class Model {
  /**
   * Made by `load`.
   * @param {Artifact} artifact
   * @param {{[name: string]: Float32Array | Int8Array}} weights
   */
  constructor(artifact, weights) {
    /** What the file says: seal, config, training, parity, properties. */
    this.artifact = artifact;
    this.vocabulary = new Vocabulary(artifact.config);
    this.engine = new Engine(artifact.config, weights);
  }

  /** What the model is. */
  get config() {
    return this.artifact.config;
  }

  /**
   * The state of a text that begins with `start`, to feed, draw, fork and save.
   * @param {string} [start]
   * @param {SamplingOptions & TextOptions} [options]
   */
  state(start = "", options = {}) {
    const state = this.#newState(options);
    state.feed(start);
    return state;
  }

  /** @param {WritingOptions} given */
  #newState({ row = 0, unknown, length: _, signal: __, ...sampling }) {
    checkNames(sampling);
    const options = checkOptions(sampling, this.vocabulary, this.config.sampling);
    options.seed ??= BigInt(crypto.getRandomValues(new Uint32Array(1))[0]);
    return new TextState(this, options, BigInt(checkWhole("row", row, 0, LIMITS.row)), checkPolicy(unknown));
  }

  /**
   * Write on from `start`, character by character: `for await (const character of stream)`.
   * @param {string} [start] the text to go on from, not part of the result; empty begins a text
   * @param {WritingOptions} [options] without a length the text goes on until its end, a stop string,
   *   `close` or the signal
   */
  stream(start = "", options = {}) {
    const begun = this.vocabulary.encodeOpen(start, options.unknown);
    return new TextStream(this.#newState(options), begun, checkLength(options.length), options.signal);
  }

  /**
   * The text that `stream` writes, whole, before this returns.
   * @param {string} [start]
   * @param {WritingOptions} [options] 200 characters, where there is no length
   */
  generate(start = "", options = {}) {
    return [...this.stream(start, { length: DEFAULT_LENGTH, ...options })].join("");
  }

  /**
   * Write on from where `state` stands, with its options; see `stream`.
   * @param {TextState} state
   * @param {StreamOptions} [options]
   */
  resume(state, { length, signal, ...others } = {}) {
    refuseOthers(others);
    return new TextStream(state, [[], ""], checkLength(length), signal);
  }

  /**
   * The state that `TextState.snapshot` saved, in this or another program.
   * @param {Uint8Array} snapshot
   */
  restore(snapshot) {
    return restoreState(this, snapshot);
  }

  /**
   * Probabilities of the character after `text`, likeliest first; `top` of them or all.
   * @param {string} [text]
   * @param {{top?: number, unknown?: "error" | "skip" | "replace"}} [options]
   */
  nextProbabilities(text = "", { top, unknown, ...others } = {}) {
    refuseOthers(others);
    return this.state(text, { unknown }).probabilities(top);
  }

  /**
   * How likely the model finds a text: every character but the first, given all before it; of a model
   * of documents each character, and the end. One that the model does not know counts as likely as
   * the one that it finds least likely there, and is then left out, or read as the replacement.
   * @param {string} text
   * @param {{window?: number, unknown?: "error" | "skip" | "replace"}} [options] a window begins from a
   *   zero state again after each so many characters
   */
  score(text, { window, unknown, ...others } = {}) {
    refuseOthers(others);
    if (window !== undefined) checkWhole("window", window, 1, LIMITS.length);
    if (this.config.end) {
      if (window !== undefined)
        throw new OptionError("window is for running text, and this model's texts end; leave it out");
      return this.scoreAlone(text, { unknown, end: true });
    }
    const [first, ...tokens] = this.#readable(text, unknown);
    const characters = countCharacters(text);
    if (characters < 2)
      throw new OptionError(`a score needs at least 2 characters, got ${characters}`);
    if (!tokens.length)
      throw new OptionError(`a score needs at least 2 tokens, and ${characters} characters are one`);
    const { unit } = this.vocabulary; // of others than char, as many tokens as have so many characters
    const size =
      window && unit !== "char"
        ? Math.max(1, roundHalfEven((window * (tokens.length + 1)) / characters))
        : (window ?? Infinity);
    return this.#score(first, tokens, unknown, size, characters - Math.max(1, this.#sizes([first], -1)[0]));
  }

  /**
   * The score of a text of its own: its first character counts too, after the separator.
   * @param {string} text
   * @param {{end?: boolean, unknown?: "error" | "skip" | "replace"}} [options] `end` scores the end
   *   too: the end token of a model of documents, else the line end, if the model knows it
   */
  scoreAlone(text, { end = false, unknown, ...others } = {}) {
    refuseOthers(others);
    const { config, vocabulary } = this;
    const ending = vocabulary.end >= 0 ? vocabulary.end : vocabulary.tokenOf.get("\n");
    const ends = end && ending !== undefined;
    const joined = ends && vocabulary.hasPieces && vocabulary.end < 0; // it may be part of a piece
    const tokens = this.#readable(joined ? `${text}\n` : text, unknown);
    if (ends && !joined) tokens.push(ending);
    if (!tokens.length) throw new OptionError("the text is empty; a score needs at least 1 character");
    const characters = countCharacters(text) + Number(ends);
    const first = config.tokens.indexOf(config.separator);
    return this.#score(first, tokens, unknown, Infinity, characters, ends && !joined ? ending : -1);
  }

  /** @type {(text: string, unknown: string | undefined) => number[]} */
  #readable(text, unknown) {
    const policy = checkPolicy(unknown);
    return this.vocabulary.lookUp(policy === "error" ? this.vocabulary.knownPart(text, policy) : text);
  }

  /** An unknown character and the ending are one each. @type {(tokens: number[], ending: number) => number[]} */
  #sizes(tokens, ending) {
    const { sizes } = this.vocabulary;
    return tokens.map((token) => (token < 0 || token === ending ? 1 : sizes[token]));
  }

  /** @type {(first: number, tokens: number[], unknown: string | undefined, window: number, characters: number, ending?: number) => Score} */
  #score(first, tokens, unknown, window, characters, ending = -1) {
    const { config, vocabulary, engine } = this;
    const standIn = (unknown ?? config.unknown) === "replace" ? vocabulary.replacement : -1;
    const instead = standIn < 0 ? config.tokens.indexOf(config.separator) : standIn; // before a window
    const hidden = new Float32Array(engine.layers * engine.hidden);
    let logits = engine.step(hidden, first < 0 ? instead : first);
    const scores = tokens.map((token, place) => {
      if (place && place % window === 0) {
        hidden.fill(0);
        logits = engine.step(hidden, tokens[place - 1] < 0 ? instead : tokens[place - 1]);
      }
      const score = logProbability(logits, token);
      const read = token < 0 ? standIn : token;
      if (read >= 0) logits = engine.step(hidden, read);
      return score;
    });
    const missing = tokens.filter((token) => token < 0).length;
    return new Score(scores, missing, this.#sizes(tokens, ending), characters);
  }
}

/** As Python rounds. @param {number} value */
const roundHalfEven = (value) => (value % 2 === 0.5 ? Math.floor(value) : Math.round(value));

/** @param {any} length */
const checkLength = (length) =>
  length === undefined || length === null ? Infinity : checkWhole("length", length, 0, LIMITS.length);

/**
 * Nats; of -1 those of the least likely token.
 * @type {(logits: Float32Array, token: number) => number}
 */
function logProbability(logits, token) {
  let [least, most, total] = [Infinity, -Infinity, 0];
  for (const logit of logits) [least, most] = [Math.min(least, logit), Math.max(most, logit)];
  for (const logit of logits) total += Math.exp(logit - most);
  return (token < 0 ? least : logits[token]) - most - Math.log(total);
}

/**
 * Read, check and open a model file.
 * @param {Uint8Array | ArrayBuffer | URL | string} source its bytes, or where it is
 * @returns {Promise<Model>}
 */
export async function load(source) {
  if (typeof source === "string" || source instanceof URL) return load(await fetchBytes(source));
  if (!(source instanceof Uint8Array) && !(source instanceof ArrayBuffer)) {
    throw new OptionError(`a model is a Uint8Array, an ArrayBuffer or a URL, got ${kindOf(source)}`);
  }
  // a copy, since bytes that change could be others after the check; Buffer's slice of Node is none
  const bytes = new Uint8Array(source instanceof Uint8Array ? source : source.slice(0));
  const { artifact, weights } = await parseArtifact(bytes);
  return new Model(artifact, weights);
}

/** @param {URL | string} source */
async function fetchBytes(source) {
  const url = String(source);
  try {
    if (url.startsWith("file:") && "process" in globalThis && !("Deno" in globalThis)) {
      // @ts-ignore: Node's fetch reads no files, and elsewhere there are no types of it
      const { readFile } = await import("node:fs/promises");
      return new Uint8Array(await readFile(new URL(url)));
    }
    const response = await fetch(url);
    if (!response.ok) throw new Error(`${response.status} ${response.statusText}`);
    return new Uint8Array(await response.arrayBuffer());
  } catch (error) {
    throw new ArtifactError(`cannot read ${shown(url)}: ${/** @type {Error} */ (error).message}`);
  }
}
