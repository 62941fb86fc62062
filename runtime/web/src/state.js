// The state of one text: what was fed, what comes next, and where its draws stand.

import { ArtifactError, OptionError, countCharacters } from "./errors.js";
import { utf8 } from "./form.js";
import { masked, nextCharacters } from "./healing.js";
import { checkOptions, checkWhole } from "./options.js";
import { conform, kindOf, parseObject } from "./records.js";
import { Sampler, byWeight, softmax } from "./sampling.js";
import { LIMITS, RECORDS } from "./tables.js";
import { TokenDecoder } from "./vocabulary.js";

/** @import { Artifact } from "./file.js" */
/** @import { Engine } from "./engine.js" */
/** @import { Vocabulary } from "./vocabulary.js" */
/** @import { Json } from "./errors.js" */
/** @import { Model } from "./model.js" */

/** A text in the making: feed it, look at what may come, draw, fork, save and restore. */
export class TextState {
  /** @type {Engine} */ #engine;
  /** @type {Artifact} */ #artifact;
  /** @type {Vocabulary} */ #vocabulary;
  /** @type {Sampler} */ #sampler;
  /** @type {string | null} */ #unknown;
  /** @type {Float32Array} */ #hidden;
  /** @type {Float32Array} */ #logits;
  /** @type {TokenDecoder} */ #decoder;
  #fed = false;
  #rest = ""; // the last run of what was fed, with which what follows is to begin
  #ready = ""; // drawn with others, and comes next

  /**
   * Made by `Model.state`.
   * @param {Model} model
   * @param {Json} options checked, with a seed
   * @param {bigint} row
   * @param {string | null} unknown
   */
  constructor(model, options, row, unknown) {
    this.model = model;
    this.#engine = model.engine;
    this.#artifact = model.artifact;
    this.#vocabulary = model.vocabulary;
    this.#sampler = new Sampler(options, this.#engine.vocab, row);
    this.#unknown = unknown;
    this.#decoder = new TokenDecoder(this.#vocabulary);
    this.#hidden = new Float32Array(this.#engine.layers * this.#engine.hidden);
    this.#logits = new Float32Array(this.#engine.vocab);
  }

  /** The sampling options. @returns {Json} */
  get options() {
    return { ...this.#sampler.options };
  }

  /** The seed of the draws: the one given, or the fresh one that was taken instead. */
  get seed() {
    return plain(this.#sampler.options.seed);
  }

  /** How many tokens were drawn so far. */
  get drawn() {
    return this.#sampler.drawn;
  }

  /**
   * Read a text as if it had been written: all of it, or nothing where this throws. Of the units word
   * and bpe its last run is kept back, since it may go on otherwise.
   * @param {string} text
   */
  feed(text) {
    const known = this.#vocabulary.knownPart(text, this.#unknown);
    if (!known) return;
    const [tokens, rest] = this.#vocabulary.encodeOpen(this.#rest + known);
    this.#read(tokens);
    this.keepBack(rest);
  }

  /** @param {number[]} tokens of the model's */
  feedTokens(tokens) {
    for (const token of tokens) checkWhole("a token", token, 0, this.#logits.length - 1);
    if (!tokens.length) return;
    if (this.#rest) this.#read(this.#vocabulary.encode(this.#rest));
    this.#read(tokens);
    this.keepBack("");
  }

  /**
   * Have what follows begin with a run of characters that the model knows.
   * @param {string} rest empty, unless the model's unit is word or bpe
   */
  keepBack(rest) {
    const [size, most] = [countCharacters(rest), this.#vocabulary.hasPieces ? LIMITS.run + 1 : 0];
    if (size > most) throw new OptionError(`rest has ${size} characters; give at most ${most}`);
    [this.#rest, this.#ready] = [this.#vocabulary.knownPart(rest, "error"), ""];
    this.#decoder.restart();
  }

  /** @param {number[]} tokens */
  #read(tokens) {
    if (!tokens.length) return;
    if (!this.#fed && this.#vocabulary.end >= 0) this.#beginText();
    for (const token of tokens) this.#step(token);
    this.#sampler.see(tokens);
    this.#fed = true;
  }

  /** @param {number} token */
  #step(token) {
    this.#logits.set(this.#engine.step(this.#hidden, token));
  }

  /** Where nothing was fed yet, feed the separator that stands before a text. */
  #begin() {
    if (this.#fed) return;
    if (this.#vocabulary.end >= 0) this.#beginText();
    else this.#read([/** @type {number} */ (this.#vocabulary.tokenOf.get(this.#artifact.config.separator))]);
  }

  /** Feed the end token before the first character: it is no token that a text has seen. */
  #beginText() {
    this.#hidden.fill(0);
    this.#step(this.#vocabulary.end);
    this.#sampler.seen?.fill(0);
    this.#fed = true;
  }

  /** Scores of the next token before temperature, a copy, [vocab_size]. */
  logits() {
    this.#begin();
    return this.#rest ? masked(this.#vocabulary, this.#logits, this.#rest) : this.#logits.slice();
  }

  /** The hidden state, a copy, [num_layers, hidden_size]. */
  hidden() {
    return this.#fed ? this.#hidden.slice() : new Float32Array(this.#hidden.length);
  }

  /**
   * The model's own probabilities of the next character, likeliest first: no temperature, no
   * filters. The empty text is the end of the text, in models of documents.
   * @param {number} [top] how many; by default all
   * @returns {Map<string, number>}
   */
  probabilities(top) {
    const wanted = top === undefined ? undefined : checkWhole("top", top, 1, LIMITS.length);
    if (this.#ready) return new Map([[first(this.#ready), 1]]);
    this.#begin();
    if (this.#vocabulary.unit !== "char") {
      const place = {
        hidden: this.#hidden,
        logits: this.#logits,
        rest: this.#rest,
        partial: this.#decoder.partial,
      };
      return new Map(nextCharacters(this.#engine, this.#vocabulary, place).slice(0, wanted));
    }
    const [weights, texts] = [softmax(this.#logits), this.#vocabulary.texts];
    const best = byWeight(weights).slice(0, wanted);
    return new Map(best.map((token) => [texts[token], weights[token]]));
  }

  /**
   * Draw the next character, feed it, and return it. The empty text is the end of the text, of a
   * model whose texts have one: the state then stands before the next text, and its draws go on.
   */
  draw() {
    while (!this.#ready) {
      this.#begin();
      const token = this.#sampler.sample(
        this.#rest ? masked(this.#vocabulary, this.#logits, this.#rest) : this.#logits,
      );
      this.#step(token);
      if (token === this.#vocabulary.end) {
        this.#fed = false;
        this.#decoder.restart();
        return "";
      }
      if (this.#rest) {
        const piece = this.#vocabulary.texts[token];
        [this.#ready, this.#rest] = [piece.slice(this.#rest.length), this.#rest.slice(piece.length)];
      } else this.#ready = this.#decoder.feed(token);
    }
    const character = first(this.#ready);
    this.#ready = this.#ready.slice(character.length);
    return character;
  }

  /** The characters that were drawn with others and have not come yet; they come no more. */
  rest() {
    const ready = this.#ready;
    this.#ready = "";
    return ready;
  }

  /** An independent copy that goes on with the same draws; it shares the model. */
  fork() {
    return restoreState(this.model, this.snapshot());
  }

  /**
   * All of the state as bytes, for `Model.restore` in this or another program, in JavaScript or Python.
   * @returns {Uint8Array}
   */
  snapshot() {
    const { options, row, drawn, seen } = this.#sampler;
    const { temperature, top_k, top_p, min_p, repetition_penalty, stop, seed } = options;
    const used = this.#fed && seen ? [...seen.keys()].filter((token) => seen[token]) : [];
    const sampling =
      `{"min_p":${pythonFloat(min_p)},"repetition_penalty":${pythonFloat(repetition_penalty)},"stop":${ascii(stop)},` +
      `"temperature":${pythonFloat(temperature)},"top_k":${top_k},"top_p":${pythonFloat(top_p)}}`;
    const header =
      `{"drawn":${drawn},"fed":${this.#fed},"model":"${this.#artifact.sha256}","options":${sampling},` +
      `"partial":[${this.#decoder.partial}],"ready":${ascii(this.#ready)},"rest":${ascii(this.#rest)},"row":${row},"seed":${seed},"seen":[${used}],` +
      `"unknown":${ascii(this.#unknown)}}`;
    const head = utf8.encode(`${LIMITS.magic}${header}\n`);
    const [hidden, logits] = this.#fed
      ? [this.#hidden, this.#logits]
      : [this.hidden(), new Float32Array(this.#logits.length)];
    const bytes = new Uint8Array(head.length + hidden.byteLength + logits.byteLength);
    bytes.set(head);
    bytes.set(new Uint8Array(hidden.buffer), head.length);
    bytes.set(new Uint8Array(logits.buffer), head.length + hidden.byteLength);
    return bytes;
  }

  /** @type {(header: Json, floats: Float32Array) => this} */
  resumeFrom({ drawn, fed, seen, rest, ready, partial }, floats) {
    const wrong = seen.find((/** @type {number} */ token) => token >= this.#logits.length);
    if (wrong !== undefined) throw new ArtifactError(`the snapshot is damaged: a token is ${wrong}`);
    this.#sampler.drawn = Number(drawn);
    this.#sampler.see(seen);
    this.#fed = fed;
    try {
      this.keepBack(rest);
      this.#ready = this.#vocabulary.knownPart(ready, "error");
    } catch (error) {
      throw new ArtifactError(`the snapshot is damaged: ${/** @type {Error} */ (error).message}`);
    }
    this.#decoder.restart(partial);
    this.#hidden.set(floats.subarray(0, this.#hidden.length));
    this.#logits.set(floats.subarray(this.#hidden.length));
    return this;
  }
}

/** @param {string} text */
const first = (text) => String.fromCodePoint(/** @type {number} */ (text.codePointAt(0)));

/** @param {bigint} value */
export const plain = (value) => (value <= Number.MAX_SAFE_INTEGER ? Number(value) : value);

/** JSON as Python writes it: ASCII alone. @param {unknown} value */
const ascii = (value) =>
  JSON.stringify(value).replace(
    /[\x7f-\uffff]/g,
    (unit) => `\\u${unit.charCodeAt(0).toString(16).padStart(4, "0")}`,
  );

/** A float as Python's repr writes it. @param {number} value */
function pythonFloat(value) {
  const [digits, exponent] = value.toExponential().split("e");
  const power = Number(exponent);
  if (power >= -4 && power < 16) return Number.isInteger(value) ? `${value}.0` : String(value);
  return `${digits}e${power < 0 ? "-" : "+"}${String(Math.abs(power)).padStart(2, "0")}`;
}

/** @type {(model: Model, snapshot: Uint8Array) => TextState} */
export function restoreState(model, snapshot) {
  const magic = utf8.encode(LIMITS.magic);
  if (!(snapshot instanceof Uint8Array))
    throw new OptionError(`a snapshot must be a Uint8Array, got ${kindOf(snapshot)}`);
  if (magic.some((byte, place) => byte !== snapshot[place]))
    throw new ArtifactError("these bytes are not a snapshot of this version of chargen");
  const found = snapshot.indexOf(10, magic.length);
  const end = found < 0 ? snapshot.length : found;
  let header;
  let isConfined = false;
  try {
    const json = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(
      snapshot.subarray(magic.length, end),
    );
    header = parseObject(json, "its header");
    const given = Object(header.options);
    isConfined = LIMITS.controls.some((/** @type {string} */ name) => Object.hasOwn(given, name));
    if (!isConfined) {
      header = conform(RECORDS.header, "its header", header);
      header.options = checkOptions({ ...header.options, seed: header.seed }, model.vocabulary);
    }
  } catch (error) {
    throw new ArtifactError(`the snapshot is damaged: ${/** @type {Error} */ (error).message}`);
  }
  if (isConfined) throw new ArtifactError("the snapshot is of a text that is confined; write it on in Python");
  const { sha256, config } = model.artifact;
  if (header.model !== sha256)
    throw new ArtifactError(`the snapshot is of another model: ${header.model.slice(0, 12)}…`);
  const rest = new Uint8Array(snapshot.subarray(end + 1)); // aligned
  const expected = 4 * (config.num_layers * config.hidden_size + config.tokens.length);
  if (rest.length !== expected)
    throw new ArtifactError(`the snapshot has ${rest.length} bytes of state, ${expected} are needed`);
  const floats = new Float32Array(rest.buffer);
  if (!floats.every(Number.isFinite))
    throw new ArtifactError("the snapshot is damaged: a number in it is not finite");
  const drawn = header.drawn && !config.end; // before its next text a state may have drawn others
  const { ready, partial, fed, seen } = header;
  const most = model.vocabulary.unit === "byte" ? 255 : -1;
  if (partial.some((/** @type {number} */ byte) => byte > most))
    throw new ArtifactError("the snapshot is damaged: it has a part of a character that is none");
  if (!fed && (floats.some(Boolean) || drawn || seen.length || ready || partial.length)) {
    throw new ArtifactError("the snapshot is damaged: nothing was fed, and yet it has a state");
  }
  return new TextState(model, header.options, BigInt(header.row), header.unknown).resumeFrom(header, floats);
}
