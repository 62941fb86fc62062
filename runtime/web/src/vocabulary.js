// Tokens and their texts: the only place where text becomes numbers and back.

import { OptionError, UnknownCharacterError, codePoint, countCharacters, shown } from "./errors.js";
import { checkPolicy } from "./options.js";
import { kindOf } from "./records.js";
import { hasPieces, splitRuns } from "./runs.js";

/** @import { Json } from "./errors.js" */

const utf8Bytes = new TextEncoder();

/** The texts that tokens stand for. */
export class Vocabulary {
  /** @type {Map<number, number[]>} by pair: the place of its merge, and what it becomes */ #merges = new Map();

  /** @param {Json} config */
  constructor({ unit, tokens, merges, end, unknown, replacement }) {
    this.unit = unit;
    /** @type {string[]} the end token's is empty */
    this.texts = tokens;
    /** @type {number} the token that ends a text, -1 where texts have no end */
    this.end = end ? tokens.length - 1 : -1;
    this.unknown = unknown;
    /** @type {Map<string, number>} */
    this.tokenOf = new Map(
      tokens.map((/** @type {string} */ text, /** @type {number} */ token) => [text, token]),
    );
    this.tokenOf.delete("");
    this.replacement = this.tokenOf.get(replacement) ?? -1;
    /** Whether a token may be several characters, so that the last one of a prompt may grow. */
    this.hasPieces = hasPieces(unit);
    for (let at = 0; at < merges.length; at += 2) {
      const [one, other] = merges.slice(at, at + 2);
      const joined = this.tokenOf.get(tokens[one] + tokens[other]);
      this.#merges.set(pairOf(one, other), [at, /** @type {number} */ (joined)]);
    }
  }

  /** How many characters each token adds to a text; of bytes, those do that begin a character. */
  get sizes() {
    return this.texts.map((text, token) =>
      text && this.unit === "byte" ? Number((token & 192) !== 128) : countCharacters(text),
    );
  }

  /** @param {string} character */
  #knows(character) {
    return this.unit === "byte" ? !/\p{Surrogate}/u.test(character) : this.tokenOf.has(character);
  }

  /** Tokens of a text whose characters are all known. @param {string} text @returns {number[]} */
  #known(text) {
    return this.unit === "byte" ? [...utf8Bytes.encode(text)] : this.#tokensOf(splitRuns(text));
  }

  /** @param {string[]} runs */
  #tokensOf(runs) {
    return runs.flatMap((run) => {
      const whole = this.unit === "word" ? this.tokenOf.get(run) : undefined;
      const tokens = Array.from(run, (character) => /** @type {number} */ (this.tokenOf.get(character)));
      return whole === undefined ? this.#joined(tokens) : [whole];
    });
  }

  /** Pairs joined: always that of the earliest merge, and the first of equals. @param {number[]} tokens */
  #joined(tokens) {
    for (;;) {
      let [earliest, place, joined] = [Infinity, -1, 0];
      for (let at = 1; at < tokens.length; at++) {
        const merge = this.#merges.get(pairOf(tokens[at - 1], tokens[at]));
        if (merge && merge[0] < earliest) [earliest, place, joined] = [merge[0], at - 1, merge[1]];
      }
      if (place < 0) return tokens;
      tokens.splice(place, 2, joined);
    }
  }

  /**
   * Tokens of a text; -1 for a character that is not known.
   * @param {string} text
   * @returns {number[]}
   */
  lookUp(text) {
    if (typeof text !== "string") throw new OptionError(`a text must be a string, got ${kindOf(text)}`);
    if (this.unit === "char") return Array.from(text, (character) => this.tokenOf.get(character) ?? -1);
    /** @type {number[]} */
    const tokens = [];
    let known = "";
    for (const character of text) {
      if (this.#knows(character)) known += character;
      else {
        tokens.push(...this.#known(known), -1);
        known = "";
      }
    }
    return tokens.concat(this.#known(known));
  }

  /**
   * A text with what a policy makes of the characters that are not known.
   * @param {string} text
   * @param {string | null | undefined} unknown
   */
  knownPart(text, unknown) {
    if (typeof text !== "string") throw new OptionError(`a text must be a string, got ${kindOf(text)}`);
    const policy = checkPolicy(unknown) ?? this.unknown;
    const instead = policy === "skip" ? "" : this.texts[this.replacement];
    let place = 0;
    return Array.from(text, (character) => {
      if (this.#knows(character)) return place++, character;
      if (policy === "error") {
        const known = this.texts.filter((each) => countCharacters(each) === 1).length;
        throw new UnknownCharacterError(character, place, known);
      }
      return instead;
    }).join("");
  }

  /**
   * Tokens of a text, where a policy decides about what is not known.
   * @param {string} text
   * @param {string | null | undefined} [unknown]
   */
  encode(text, unknown) {
    return this.lookUp(this.knownPart(text, unknown));
  }

  /**
   * Tokens of a text without its last run, and that run: what follows is to begin with it, as the
   * text may go on inside its last word. Of characters and bytes it is empty.
   * @param {string} text
   * @param {string | null | undefined} [unknown]
   * @returns {[number[], string]}
   */
  encodeOpen(text, unknown) {
    if (!this.hasPieces) return [this.encode(text, unknown), ""];
    const runs = splitRuns(this.knownPart(text, unknown));
    const rest = runs.pop() ?? "";
    return [this.#tokensOf(runs), rest];
  }

  /**
   * Whether a token goes on as a text does: reaches beyond its end, or is a beginning of it.
   * @type {(token: number, text: string) => boolean}
   */
  goesOn(token, text) {
    const own = this.texts[token];
    return own !== "" && (own.startsWith(text) || text.startsWith(own));
  }

  /** @param {string[]} stops */
  checkWritable(stops) {
    for (const character of stops.join("")) {
      if (this.#knows(character)) continue;
      throw new OptionError(
        `stop has the character ${shown(character)} (${codePoint(character)}), which the model does not know, ` +
          "so the text would never stop there; leave it out",
      );
    }
  }
}

/** @type {(one: number, other: number) => number} */
const pairOf = (one, other) => one * 65536 + other;

/**
 * The text of tokens as they come; bytes become characters as soon as these are whole, and U+FFFD
 * when Python's incremental decoder says so. (A TextDecoder may say it later.)
 */
export class TokenDecoder {
  /** @type {number[]} the bytes of a character that has only begun */
  partial = [];

  /** @param {Vocabulary} vocabulary */
  constructor(vocabulary) {
    this.vocabulary = vocabulary;
  }

  /** @param {number} token none that ends a text */
  feed(token) {
    const { unit, texts } = this.vocabulary;
    if (unit !== "byte") return texts[token];
    const [lead, second] = this.partial;
    let text = "";
    const isHalf = lead === 0xed && second >= 0xa0; // of a surrogate, which Python sees a byte later
    if (lead && (isHalf || !goesOnAfter(lead, second, token)))
      [text, this.partial] = ["\ufffd".repeat(isHalf ? 2 : 1), []];
    if (!this.partial.length) {
      if (token < 0x80) return text + texts[token];
      if (token < 0xc2 || token > 0xf4) return `${text}\ufffd`;
    }
    this.partial.push(token);
    if (this.partial.length === 1 || this.partial.length < (lead < 0xe0 ? 2 : lead < 0xf0 ? 3 : 4))
      return text;
    const bytes = Uint8Array.from(this.partial);
    this.partial = [];
    return new TextDecoder("utf-8", { ignoreBOM: true }).decode(bytes);
  }

  /** Forget what has begun, or go on where another was left. @param {number[]} [partial] */
  restart(partial = []) {
    this.partial = [...partial];
  }
}

/** @type {(lead: number, second: number | undefined, byte: number) => boolean} */
function goesOnAfter(lead, second, byte) {
  const least = second ? 0x80 : lead === 0xe0 ? 0xa0 : lead === 0xf0 ? 0x90 : 0x80;
  const most = !second && lead === 0xf4 ? 0x8f : 0xbf;
  return byte >= least && byte <= most;
}
