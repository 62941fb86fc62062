// What a file says of itself: strict JSON, the records' limits, and what contradicts itself.

import { ArtifactError, countCharacters, shown } from "./errors.js";
import { hasPieces, splitRuns } from "./runs.js";
import { GRAPHS, LIMITS, TOLERANCES } from "./tables.js";

/** @import { Json } from "./errors.js" */

/**
 * The JSON object in a text. Integers become bigint, so that 2 and 2.0 differ.
 * @param {string} json
 * @param {string} where says in messages what it is
 * @returns {Json}
 */
export function parseObject(json, where) {
  const fail = (/** @type {string} */ what) => {
    throw new ArtifactError(`${where} ${what}`);
  };
  const count = (/** @type {RegExp} */ of) => (json.match(of) ?? []).length;
  if (count(/[[{]/g) > LIMITS.openings) fail(`has more than ${LIMITS.openings} lists and objects`);
  if (count(/:/g) > LIMITS.colons) fail(`has more than ${LIMITS.colons} keys`);
  let at = 0;
  const next = () => {
    while (/^[ \t\n\r]$/.test(json[at])) at++;
    return json[at];
  };
  const skip = (/** @type {string} */ character) => {
    if (next() !== character) fail(`is not JSON: ${shown(character)} is missing at character ${at}`);
    at++;
  };
  const string = () => {
    const begin = at;
    do {
      at += json[at] === "\\" ? 2 : 1;
    } while (at < json.length && json[at] !== '"');
    let value;
    try {
      value = JSON.parse(json.slice(begin, ++at));
    } catch {
      fail(`is not JSON at character ${begin}`);
    }
    return /\p{Surrogate}/u.test(value) ? fail("has a lone surrogate, which no text has") : value;
  };
  const number = () => {
    const pattern = /-?(?:0|[1-9]\d*)(\.\d+)?([eE][+-]?\d+)?|true|false|null/y;
    pattern.lastIndex = at;
    const found = pattern.exec(json) ?? fail(`is not JSON at character ${at}`);
    at = pattern.lastIndex;
    const digits = found[0];
    if (/^[tfn]/.test(digits)) return JSON.parse(digits);
    if (!found[1] && !found[2]) {
      return digits.length > LIMITS.digits
        ? fail(`has an integer of ${digits.length} digits`)
        : BigInt(digits);
    }
    return digits.length > 64 || !Number.isFinite(Number(digits))
      ? fail("has a number that is too long or too large")
      : Number(digits);
  };
  const list = (/** @type {number} */ depth) => {
    const values = [];
    for (skip("["); next() !== "]";) {
      if (values.length) skip(",");
      values.push(value(depth + 1));
    }
    at++;
    return values;
  };
  const object = (/** @type {number} */ depth) => {
    const values = Object.create(null); // so that no key has a meaning of its own
    let first = true;
    for (skip("{"); next() !== "}"; first = false) {
      if (!first) skip(",");
      if (next() !== '"') fail(`is not JSON at character ${at}`);
      const key = string();
      if (key in values) fail(`: the key ${shown(key)} appears twice`);
      skip(":");
      values[key] = value(depth + 1);
    }
    at++;
    return values;
  };
  /** @type {(depth: number) => any} */
  const value = (depth) => {
    if (depth > LIMITS.depth) fail(`is nested more than ${LIMITS.depth} deep`);
    const first = next();
    return first === "{" ? object(depth) : first === "[" ? list(depth) : first === '"' ? string() : number();
  };
  if (next() !== "{") fail("is not a JSON object");
  const found = value(1);
  if (next() !== undefined) fail(`is not JSON: more follows at character ${at}`);
  return found;
}

/** @param {unknown} value */
export function kindOf(value) {
  if (typeof value === "bigint") return "integer";
  return value === null ? "null" : Array.isArray(value) ? "array" : typeof value;
}

/**
 * A JSON value as its schema says: integers become numbers where those are exact.
 * @param {Json} schema
 * @param {string} name
 * @param {any} value
 * @returns {any}
 */
export function conform(schema, name, value) {
  const kind = kindOf(value);
  const refuse = (/** @type {string} */ what) => {
    throw new ArtifactError(`${name} is ${shown(value)}; it must be ${what}`);
  };
  if (schema.anyOf) {
    const own = schema.anyOf.find((/** @type {Json} */ each) => each.type === kind);
    return conform(own ?? schema.anyOf[0], name, value);
  }
  if (schema.enum) return schema.enum.includes(value) ? value : refuse(`one of ${schema.enum.join(", ")}`);
  if (kind !== schema.type && !(schema.type === "number" && kind === "integer")) refuse(schema.type);
  const size = kind === "string" ? countCharacters(value) : kind === "array" ? value.length : 0;
  if (
    size < (schema.minLength ?? schema.minItems ?? 0) ||
    size > (schema.maxLength ?? schema.maxItems ?? Infinity)
  ) {
    throw new ArtifactError(
      `${name} has ${size} ${kind === "array" ? "values" : "characters"}; that is not allowed`,
    );
  }
  if (kind === "string" && schema.pattern && !new RegExp(schema.pattern, "u").test(value)) {
    refuse(`one line that matches ${schema.pattern}`);
  }
  if (kind === "integer" || kind === "number") {
    const [low, high] = [schema.minimum ?? schema.exclusiveMinimum ?? -Infinity, schema.maximum ?? Infinity];
    if (!(value >= low && value <= high) || value <= (schema.exclusiveMinimum ?? -Infinity))
      refuse(`${low} to ${high}`);
    const exact =
      schema.type === "number" || (value <= Number.MAX_SAFE_INTEGER && value >= Number.MIN_SAFE_INTEGER);
    return exact ? Number(value) : value;
  }
  if (kind === "array") {
    const items = value.map((/** @type {any} */ each, /** @type {number} */ place) =>
      conform(schema.items, `${name}[${place}]`, each),
    );
    if (schema.uniqueItems && new Set(items).size !== items.length)
      throw new ArtifactError(`${name} has a value twice`);
    return items;
  }
  return kind === "object" ? conformObject(schema, name, value) : value;
}

/** @type {(schema: Json, name: string, value: Json) => Json} */
function conformObject({ properties, values, maxProperties }, name, value) {
  const keys = Object.keys(value);
  if (keys.length > (maxProperties ?? Infinity))
    throw new ArtifactError(`${name} has ${keys.length} keys; give at most ${maxProperties}`);
  const missing = Object.keys(properties ?? {}).filter((key) => !(key in value));
  if (missing.length) throw new ArtifactError(`${name} lacks ${missing.join(", ")}`);
  const result = Object.create(null);
  for (const key of keys) {
    const schema = properties
      ? Object.hasOwn(properties, key) && properties[key]
      : countCharacters(key) <= 64 && values;
    if (!schema) throw new ArtifactError(`${name} has a key that is not known: ${shown(key)}`);
    result[key] = conform(schema, `${name}: ${key}`, value[key]);
  }
  return result;
}

/** @type {(a: number, b: number, absolute?: number) => boolean} */
export const close = (a, b, absolute = 0) =>
  Number.isFinite(b) && Math.abs(a - b) <= Math.max(1e-6 * Math.max(Math.abs(a), Math.abs(b)), absolute);

/**
 * What a configuration says against itself; empty where nothing.
 * @param {Json} config
 */
export function configProblem({ unit, tokens, merges, end, separator, precision, replacement }) {
  const newer = "that needs a newer chargen.js";
  if (!Object.hasOwn(GRAPHS, precision))
    return `precision is ${shown(precision)}, none of ${Object.keys(GRAPHS).join(", ")}; ${newer}`;
  const own = end ? tokens.slice(0, -1) : tokens;
  if (end && (tokens.at(-1) !== "" || separator !== "" || !own.length)) {
    return "end is true, so the last of two or more tokens, and the separator, are empty";
  }
  const lengths = own.map(countCharacters);
  const longer = lengths.findIndex((/** @type {number} */ length) => length !== 1);
  const single = hasPieces(unit) && longer >= 0 ? longer : own.length;
  const wrong = lengths.findIndex((/** @type {number} */ length, /** @type {number} */ place) =>
    place < single ? length !== 1 : length < 2,
  );
  if (wrong >= 0)
    return wrong < single
      ? `tokens[${wrong}] has ${lengths[wrong]} characters; with the unit ${unit} it has 1`
      : `tokens[${wrong}] has ${lengths[wrong]} characters and comes after a longer one`;
  const characters = own.slice(0, single);
  if (!end && !characters.includes(separator))
    return `the separator ${shown(separator)} is not one character of the vocabulary`;
  if (!characters.includes(replacement))
    return `the replacement ${shown(replacement)} is not one character of the vocabulary`;
  if (hasPieces(unit)) return piecesProblem(unit, own, single, merges);
  if (unit === "byte" && (own.length !== 256 || own.some(isNoByte)))
    return "with the unit byte, the tokens are the 256 bytes, written U+0000 to U+00FF";
  return merges.length ? `with the unit ${unit} there are no pieces` : "";
}

/** @type {(text: string, byte: number) => boolean} */
const isNoByte = (text, byte) => text !== String.fromCharCode(byte);

/** @type {(unit: string, texts: string[], single: number, merges: number[]) => string} */
function piecesProblem(unit, texts, single, merges) {
  const known = new Set(texts.slice(0, single));
  for (let at = single; at < texts.length; at++) {
    const piece = texts[at];
    if ([...piece].some((character) => !known.has(character)))
      return `tokens[${at}] has a character that is no token by itself`;
    if (splitRuns(piece).length !== 1 && splitRuns(`${piece} `)[0] !== piece)
      return `tokens[${at}] goes across where a text is split, so no text has it`;
  }
  if (unit !== "bpe") return merges.length ? "merges are of the unit bpe" : "";
  if (merges.length % 2) return `merges has ${merges.length} tokens, which are no pairs`;
  const tokenOf = new Map(texts.map((text, token) => [text, token]));
  const [made, seen] = [new Set(Array(single).keys()), new Set()];
  for (let at = 0; at < merges.length; at += 2) {
    const [one, other] = [merges[at], merges[at + 1]];
    if (!made.has(one) || !made.has(other))
      return `merges[${at}]: a token of the pair (${one}, ${other}) is not made before it`;
    const joined = tokenOf.get(texts[one] + texts[other]);
    if (joined === undefined) return `merges[${at}]: the pair (${one}, ${other}) makes no token`;
    if (seen.has(`${one} ${other}`)) return `merges[${at}]: the pair (${one}, ${other}) stands twice`;
    seen.add(`${one} ${other}`);
    made.add(joined);
  }
  const missing = texts.findIndex((_, token) => !made.has(token));
  return missing < 0 ? "" : `tokens[${missing}] is made by no merge`;
}

/**
 * What a training record says against itself; empty where nothing.
 * @param {Json} training
 */
export function trainingProblem({
  characters,
  training_characters,
  corpora,
  exported_step,
  steps,
  validation,
  split,
  score_quantiles,
}) {
  const again = "export it again";
  if (validation && !close(validation.bits_per_char, validation.nats_per_char / Math.LN2)) {
    return `validation: bits_per_char is ${validation.bits_per_char}, but there are ${validation.nats_per_char} nats; ${again}`;
  }
  if (score_quantiles) {
    const { levels, nats_per_char, by_length, oddness } = score_quantiles;
    if (levels.length !== nats_per_char.length)
      return `score_quantiles: ${levels.length} levels and ${nats_per_char.length} nats_per_char`;
    if (oddness.length !== (by_length.length ? levels.length : 0))
      return `score_quantiles: ${by_length.length} by_length and ${oddness.length} oddness`;
    const lengths = by_length.map((/** @type {Json} */ each) => each.characters);
    if (lengths.some((/** @type {number} */ each, /** @type {number} */ place) => each <= lengths[place - 1]))
      return "score_quantiles: by_length does not rise";
    for (const numbers of [levels, nats_per_char, oddness]) {
      if (
        numbers.some((/** @type {number} */ each, /** @type {number} */ place) => each < numbers[place - 1])
      )
        return "score_quantiles do not rise";
    }
  }
  if (training_characters > characters)
    return `training_characters is ${training_characters}, but the corpus has ${characters}; ${again}`;
  if (corpora.some((/** @type {Json} */ corpus) => corpus.characters > characters))
    return `characters is ${characters}, but a corpus has more; ${again}`;
  if (exported_step > steps) return `exported_step is ${exported_step}, but steps is ${steps}`;
  if (!validation || split.holdout === "file") return "";
  const left = split.holdout === "none" ? 0n : BigInt(characters) - BigInt(training_characters);
  if (validation.characters > left)
    return `validation: characters is ${validation.characters}, but ${left} were held out; ${again}`;
  if (validation.documents > split.count)
    return `validation: documents is ${validation.documents} of ${split.count}`;
  return "";
}

/**
 * What a certificate says against itself, the precision and the vocabulary; empty where nothing.
 * @param {Json} parity
 * @param {Json} config
 */
export function parityProblem(parity, { precision, tokens }) {
  for (const written of [parity.greedy, parity.seeded]) {
    if (written && written.equal !== (written.near_ties === 0))
      return `equal is ${written.equal} with ${written.near_ties} near ties; export it again`;
    if (written && written.near_ties > written.characters)
      return `${written.near_ties} near ties in ${written.characters} characters; export it again`;
  }
  if (parity.gate) {
    const { loss_increase, max_loss_increase, nats_per_char, fp32_nats_per_char } = parity.gate;
    const increase = nats_per_char - fp32_nats_per_char;
    if (!close(loss_increase, increase, 1e-6))
      return `gate: loss_increase is ${loss_increase}, but the losses say ${increase}`;
    if (loss_increase > max_loss_increase)
      return `gate: loss_increase is ${loss_increase}, above ${max_loss_increase}`;
  }
  const { logits, hidden } = TOLERANCES[precision];
  for (const [what, limit] of Object.entries({ logits, hidden, prefill: logits })) {
    const found = parity[`largest_${what}_difference`];
    if (found > limit)
      return `largest_${what}_difference is ${found}; the format allows ${limit}; export it again`;
  }
  for (const vector of parity.vectors) {
    if ([...vector.tokens, ...vector.greedy].some((token) => token >= tokens.length))
      return `a token of a test vector is not below ${tokens.length}`;
    const wanted = Math.ceil(tokens.length / vector.stride);
    if (vector.logits.length !== wanted)
      return `a test vector has ${vector.logits.length} logits; the vocabulary and the stride ask for ${wanted}`;
  }
  return "";
}
