// What goes wrong, and how a message shows a value.

/** Base of every error that chargen throws on purpose; its message is one line for a person. */
export class ChargenError extends Error {
  get name() {
    return this.constructor.name;
  }
}

/** The model file is damaged, foreign, or of a format that this version cannot read. */
export class ArtifactError extends ChargenError {}

/** An option or an argument is out of its range; the message names value, range and cure. */
export class OptionError extends ChargenError {}

/** A text has a character that the model does not know. */
export class UnknownCharacterError extends ChargenError {
  /**
   * @param {string} character one code point
   * @param {number} position its index in the text, counted in code points from 0
   * @param {number} known how many characters the model knows
   */
  constructor(character, position, known) {
    super(
      `the model does not know the character ${shown(character)} (${codePoint(character)}) at ` +
        `position ${position}, only ${known} others; leave it out, or set unknown to skip or replace`,
    );
    this.character = character;
    this.position = position;
  }
}

/** @param {string} character */
export function codePoint(character) {
  const digits = /** @type {number} */ (character.codePointAt(0)).toString(16).toUpperCase();
  return `U+${digits.padStart(4, "0")}`;
}

/**
 * A value as a message shows it, on one printable line.
 * @param {unknown} value
 */
export function shown(value) {
  if (typeof value === "bigint") return String(value);
  if (typeof value === "object" && value !== null) return Array.isArray(value) ? "a list" : "an object";
  if (typeof value !== "string") return typeof value === "function" ? "a function" : String(value);
  const text = JSON.stringify([...value].slice(0, 60).join(""));
  return text.replace(/(?! )[\p{C}\p{Z}]/gu, (c) => `\\u{${c.codePointAt(0)?.toString(16)}}`);
}

/** @param {string} text */
export const countCharacters = (text) => [...text].length;

/** @typedef {{[key: string]: any}} Json */
/** @typedef {{vocab_size: number, embedding_dim: number, hidden_size: number, num_layers: number}} Sizes */
