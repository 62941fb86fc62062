// Sampling options and characters, checked as Python checks them.

import { OptionError, countCharacters, shown } from "./errors.js";
import { kindOf } from "./records.js";
import { LIMITS, OPTIONS, RECORDS } from "./tables.js";

/** @import { Json } from "./errors.js" */
/** @import { Vocabulary } from "./vocabulary.js" */

/**
 * @typedef {object} SamplingOptions How the next token is chosen.
 * @property {number} [temperature] divides the logits; 0 is greedy
 * @property {number} [top_k] keep the k most likely tokens, ties with the k-th included; 0 is off
 * @property {number} [top_p] keep the most likely tokens until their mass reaches p; 1 is off
 * @property {number} [min_p] drop tokens less likely than min_p times the likeliest; 0 is off
 * @property {number} [repetition_penalty] divides positive and multiplies negative logits of the
 *   tokens that the prompt or the output has; 1 is off
 * @property {string | string[]} [stop] strings that end the text; they are not part of it
 * @property {number | bigint} [seed] of the draws; by default a fresh one
 */
/**
 * @typedef {object} TextOptions How a text is begun.
 * @property {number | bigint} [row] number of the row in the seed's family of texts
 * @property {"error" | "skip" | "replace"} [unknown] policy for characters of the start that the
 *   model does not know; by default the model's own
 */
/**
 * @typedef {object} StreamOptions How a text is written.
 * @property {number} [length] new characters at most
 * @property {AbortSignal} [signal] ends the text
 */
/** @typedef {SamplingOptions & TextOptions & StreamOptions} WritingOptions */

const POLICIES = RECORDS.config.properties.unknown.enum;
export const DEFAULT_LENGTH = 200;

/**
 * A number as the table of options wants it: a whole one as a number where that is exact.
 * @param {string} name
 * @param {any} value
 */
function checkOption(name, value) {
  const { low, high, whole, above, special, range } = OPTIONS[name];
  const fits = whole ? typeof value === "bigint" || Number.isInteger(value) : Number.isFinite(value);
  if (!fits && typeof value !== "number")
    throw new OptionError(`${name} must be a ${whole ? "whole " : ""}number, got ${kindOf(value)}`);
  const inside =
    (low < value && value <= high) || (value == low && !above) || (special && value === special[0]);
  if (!fits || !inside) throw new OptionError(`${name} is ${value}; give ${range}`);
  return name === "seed" ? BigInt(value) : value;
}

/** @type {(name: string, value: any, low: number, high: number | bigint) => any} */
export function checkWhole(name, value, low, high) {
  const whole = typeof value === "bigint" || Number.isInteger(value);
  if (!whole) throw new OptionError(`${name} must be a whole number, got ${shown(value)}`);
  if (!(value >= low && value <= high)) throw new OptionError(`${name} is ${value}; give ${low} to ${high}`);
  return value;
}

/**
 * Refuses options that Python alone has, and what is no option.
 * @param {Json} given
 */
export function checkNames(given) {
  for (const name of Object.keys(given)) {
    if (LIMITS.controls.includes(name))
      throw new OptionError(`${name} is not in JavaScript; leave it out, or write the text in Python`);
    if (name !== "stop" && !Object.hasOwn(OPTIONS, name)) throw new OptionError(`no such option: ${name}`);
  }
}

/**
 * Refuses what a call has no use for, such as a misspelt or a sampling option where nothing is drawn.
 * @param {Json} others
 */
export function refuseOthers(others) {
  for (const name of Object.keys(others)) throw new OptionError(`no such option here: ${name}; leave it out`);
}

/** @param {any} value */
function checkStops(value) {
  const stops = typeof value === "string" ? (value ? [value] : []) : value;
  if (!Array.isArray(stops)) throw new OptionError(`stop is ${shown(value)}; give non-empty strings`);
  if (stops.length > LIMITS.stops)
    throw new OptionError(`stop has ${stops.length} strings; give at most ${LIMITS.stops}`);
  for (const stop of stops) {
    if (typeof stop !== "string" || !stop)
      throw new OptionError(`stop has ${shown(stop)}; give non-empty strings`);
    const size = countCharacters(stop);
    if (size > LIMITS.stop)
      throw new OptionError(`a stop string has ${size} characters; give at most ${LIMITS.stop}`);
  }
  return [...stops];
}

/**
 * Sampling options, each checked, on top of the format's defaults or the model's.
 * @param {Json} given
 * @param {Vocabulary} vocabulary
 * @param {Json} defaults
 * @returns {Json}
 */
export function checkOptions(given, vocabulary, defaults = {}) {
  /** @type {Json} */
  const options = { ...defaults, stop: checkStops(given.stop ?? defaults.stop ?? []) };
  for (const name of Object.keys(OPTIONS)) {
    if (given[name] !== undefined && given[name] !== null) options[name] = checkOption(name, given[name]);
  }
  vocabulary.checkWritable(options.stop);
  return options;
}

/** @param {any} unknown @returns {string | null} */
export function checkPolicy(unknown) {
  if (unknown === undefined || unknown === null || POLICIES.includes(unknown)) return unknown ?? null;
  throw new OptionError(`unknown is ${shown(unknown)}; choose one of ${POLICIES.join(", ")}`);
}
