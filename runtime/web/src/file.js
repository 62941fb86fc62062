// Reading a file: protobuf, metadata, the seal, and all the checks in their order.

import { ArtifactError, shown } from "./errors.js";
import {
  BYTES,
  MODEL_METADATA,
  SEAL_KEY,
  VARINT,
  messageField,
  readWeights,
  renderForm,
  textField,
} from "./form.js";
import { checkOptions } from "./options.js";
import { configProblem, conform, parityProblem, parseObject, trainingProblem } from "./records.js";
import { sha256 } from "./sha256.js";
import { LIMITS, LINE, RECORDS } from "./tables.js";
import { Vocabulary } from "./vocabulary.js";

/** @import { Json } from "./errors.js" */

/**
 * The varint at a position, and the position after it.
 * @param {Uint8Array} data
 * @param {number} begin
 * @param {number} end
 * @returns {[number, number]}
 */
function readVarint(data, begin, end) {
  let value = 0;
  for (let count = 0; count < 10; count++) {
    if (begin + count >= end)
      throw new ArtifactError(`the file is cut off inside the number at byte ${begin}`);
    const byte = data[begin + count];
    value += (byte & 127) * 2 ** (7 * count);
    if (byte < 128) {
      if ((count === 9 && byte > 1) || (byte === 0 && count)) break; // over 64 bits, or too long
      return [value, begin + count + 1];
    }
  }
  throw new ArtifactError(`the number at byte ${begin} is longer than its value needs`);
}

/**
 * The fields of a message: number, bytes (null for an integer), and where the field ends.
 * @param {Uint8Array} data
 * @returns {Generator<{number: number, bytes: Uint8Array | null, end: number}>}
 */
function* fields(data) {
  for (let at = 0; at < data.length;) {
    const begin = at;
    let key, size;
    [key, at] = readVarint(data, at, data.length);
    const [number, wire] = [Math.floor(key / 8), key % 8];
    if (number < 1 || number >= 2 ** 29)
      throw new ArtifactError(`field number ${number} at byte ${begin} is not valid`);
    if (wire !== VARINT && wire !== BYTES)
      throw new ArtifactError(`field ${number} at byte ${begin} has wire type ${wire}`);
    [size, at] = readVarint(data, at, data.length);
    if (wire === VARINT) {
      yield { number, bytes: null, end: at };
      continue;
    }
    if (size > data.length - at) {
      throw new ArtifactError(
        `the file is cut off: field ${number} at byte ${begin} needs ${size} bytes, ${data.length - at} are left`,
      );
    }
    at += size;
    yield { number, bytes: data.subarray(at - size, at), end: at };
  }
}

/**
 * The metadata in the file's order, and where the last field before it ends.
 * @param {Uint8Array} data
 */
export function readMetadata(data) {
  const strict = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });
  /** @type {Map<string, string>} */
  const metadata = new Map();
  let [count, size, begin] = [0, 0, 0];
  for (const { number, bytes, end } of fields(data)) {
    if (++count > LIMITS.fields) throw new ArtifactError(`the model has more than ${LIMITS.fields} fields`);
    if (number !== MODEL_METADATA || !bytes) {
      begin = end;
      continue;
    }
    size += bytes.length;
    if (metadata.size === LIMITS.entries)
      throw new ArtifactError(`the metadata has more than ${LIMITS.entries} entries`);
    if (size > LIMITS.metadata)
      throw new ArtifactError(`the metadata has more than ${LIMITS.metadata} bytes`);
    const where = `metadata entry ${metadata.size + 1}`;
    const pair = [...fields(bytes)];
    if (pair.length !== 2 || pair[0].number !== 1 || pair[1].number !== 2) {
      throw new ArtifactError(`${where} is not one key and then one value`);
    }
    let key, value;
    try {
      [key, value] = pair.map((part) => strict.decode(part.bytes ?? Uint8Array.of(255)));
    } catch {
      throw new ArtifactError(`${where} is not UTF-8`);
    }
    if (metadata.has(key)) throw new ArtifactError(`the metadata key ${shown(key)} appears twice`);
    metadata.set(key, value);
  }
  return { metadata, begin };
}

/**
 * The seal of a file, recomputed over its bytes.
 * @param {Uint8Array} data
 */
async function checkSeal(data) {
  const entry = messageField(MODEL_METADATA, [
    ...textField(1, SEAL_KEY),
    ...textField(2, "0".repeat(64)),
  ]).flatMap((part) => [.../** @type {Uint8Array} */ (part)]);
  const body = data.length - entry.length;
  const isSeal = body > 0 && entry.slice(0, -64).every((byte, place) => data[body + place] === byte);
  if (!isSeal) throw new ArtifactError(describeForeign(data));
  const found = new TextDecoder().decode(data.subarray(-64));
  if (found !== (await sha256(data.subarray(0, body)))) {
    throw new ArtifactError(
      "the seal does not match: the file is damaged or was changed after its export; copy or export it again",
    );
  }
  return found;
}

/** @param {Uint8Array} data */
function describeForeign(data) {
  const peek = (/** @type {Uint8Array} */ bytes) => new TextDecoder("latin1").decode(bytes);
  const start = peek(data.subarray(0, 4096));
  if (!data.length) return "the file is empty; copy or export it again";
  if (start.startsWith("version https://git-lfs"))
    return "this is a Git LFS pointer, not the model; run: git lfs pull";
  if (/^\s*</.test(start)) return "this is an HTML or XML page, not a model; download the raw file";
  if (peek(data.subarray(-4096)).includes(SEAL_KEY)) {
    return "the seal is not the last thing in the file: it is cut off or was added to";
  }
  return "no seal: not a model that train-export wrote, or cut off; export it with train-export";
}

/**
 * @typedef {object} Artifact A model file that was read whole and found intact.
 * @property {string} sha256 the seal
 * @property {Json} config what the model is
 * @property {Json} training how it came to be
 * @property {Json} parity what was compared when it was exported
 * @property {{[key: string]: string}} properties the flat keys that model viewers show
 */

/**
 * Check the bytes of a model file.
 * @param {Uint8Array} data
 * @returns {Promise<{artifact: Artifact, weights: {[name: string]: Float32Array | Int8Array}}>}
 */
export async function parseArtifact(data) {
  if (data.length > LIMITS.file)
    throw new ArtifactError(`the file has ${data.length} bytes; the limit is ${LIMITS.file}`);
  const sha256 = await checkSeal(data);
  const { metadata, begin } = readMetadata(data);
  checkKeys(metadata, sha256);
  const read = (/** @type {string} */ name) => {
    const key = `chargen.${name}`;
    return conform(RECORDS[name], key, parseObject(/** @type {string} */ (metadata.get(key)), key));
  };
  const [config, training, parity] = [read("config"), read("training"), read("parity")];
  const refuse = (/** @type {string} */ name, /** @type {string} */ problem) => {
    if (problem) throw new ArtifactError(`chargen.${name}: ${problem}`);
  };
  refuse("config", configProblem(config));
  try {
    config.sampling = checkOptions(config.sampling, new Vocabulary(config));
  } catch (error) {
    refuse("config", `sampling: ${/** @type {Error} */ (error).message}`);
  }
  refuse("training", trainingProblem(training));
  refuse("parity", parityProblem(parity, config));
  refuse("filter", filterProblem(metadata.get("chargen.filter"), training.split));
  const form = renderForm(config.precision, { vocab_size: config.tokens.length, ...config });
  const weights = readWeights(data.subarray(0, begin), form);
  const properties = Object.fromEntries(
    LIMITS.flat.map((/** @type {string} */ key) => [key, metadata.get(key) ?? ""]),
  );
  return { artifact: { sha256, config, training, parity, properties }, weights };
}

/**
 * Why the text of a filter cannot be of the documents of a corpus, which nothing here looks up.
 * @type {(text: string | undefined, split: Json) => string}
 */
function filterProblem(text, { documents, count }) {
  if (text === undefined) return "";
  if (documents === "none" || !count || count > LIMITS.filtered)
    return `it is there for 1 to ${LIMITS.filtered} documents, and this corpus has ${count}`;
  const size = 4 * Math.floor((Math.floor((29 * count) / 8) + 8) / 3) + 4;
  return text.length === size && !/[^A-Za-z0-9+/]/.test(text)
    ? ""
    : `it is not base64 of ${size} characters, which ${count} documents have`;
}

/** @type {(metadata: Map<string, string>, sha256: string) => void} */
function checkKeys(metadata, sha256) {
  const format = metadata.get("chargen.format");
  if (format !== undefined && format !== String(LIMITS.format)) {
    const cure =
      format === "1"
        ? "only development versions wrote it; write the file again with train-export"
        : "update chargen.js";
    throw new ArtifactError(
      `format ${shown(format)} is not known to this version, which reads format ${LIMITS.format}; ${cure}`,
    );
  }
  const missing = LIMITS.keys.filter((/** @type {string} */ key) => !metadata.has(key));
  if (missing.length)
    throw new ArtifactError(`the metadata lacks ${missing.join(", ")}; export it with train-export`);
  if (metadata.has("chargen.graph")) {
    throw new ArtifactError("the file is a sampler, for other programs; give the model that it was made of");
  }
  const keys = [...metadata.keys()];
  const unknown = keys.find((key) => !LIMITS.keys.includes(key) && key !== "chargen.filter");
  if (unknown !== undefined)
    throw new ArtifactError(`the metadata has a key that is not known: ${shown(unknown)}`);
  if (keys.at(-1) !== SEAL_KEY || metadata.get(SEAL_KEY) !== sha256)
    throw new ArtifactError("the seal is not the last metadata entry");
  for (const key of LIMITS.flat) {
    try {
      conform(LINE, key, metadata.get(key));
    } catch {
      throw new ArtifactError(
        `${key} is ${shown(metadata.get(key))}; it must be one line of at most ${LINE.maxLength} characters, none of them a control character`,
      );
    }
  }
}
