// A model file as a form: literal bytes with holes for the weights, as Python's form.py has it.

import { ArtifactError } from "./errors.js";
import { GRAPHS, LIMITS } from "./tables.js";

/** @import { Sizes } from "./errors.js" */

export const MODEL_METADATA = 14; // ModelProto.metadata_props
export const SEAL_KEY = "chargen.sha256";
export const [VARINT, BYTES] = [0, 2]; // wire types
const [FLOAT, UINT8, INT8, INT64, FLOAT16] = [1, 2, 3, 7, 10]; // TensorProto.DataType
/** @type {{[kind: number]: number}} */
const WIDTH = { [FLOAT]: 4, [UINT8]: 1, [INT8]: 1, [INT64]: 8, [FLOAT16]: 2 };
const [ATTRIBUTE_INT, ATTRIBUTE_GRAPH, ATTRIBUTE_INTS] = [2, 5, 7];

export const utf8 = new TextEncoder();

/** @param {number} value */
function varint(value) {
  const bytes = [];
  for (; value >= 128; value = Math.floor(value / 128)) bytes.push((value % 128) + 128);
  return Uint8Array.from([...bytes, value]);
}

/** @typedef {{name: string, kind: number, count: number}} Hole a tensor that a file fills */
/** @typedef {Uint8Array | Hole} Part */

/** @param {Part} part */
export const partSize = (part) => (part instanceof Uint8Array ? part.length : part.count * WIDTH[part.kind]);

/** @type {(number: number, value: number) => Part[]} */
export const integerField = (number, value) => [varint(number * 8 + VARINT), varint(value)];

/** @type {(number: number, parts: Part[]) => Part[]} */
export const messageField = (number, parts) => [
  varint(number * 8 + BYTES),
  varint(parts.reduce((size, part) => size + partSize(part), 0)),
  ...parts,
];

/** @type {(number: number, value: string) => Part[]} */
export const textField = (number, value) => messageField(number, [utf8.encode(value)]);

/**
 * The literal bytes and the holes of a file with this graph; `GRAPHS` says in what order.
 * @param {string} precision
 * @param {Sizes} sizes
 */
export function renderForm(precision, sizes) {
  const letters = { V: sizes.vocab_size, E: sizes.embedding_dim, H: sizes.hidden_size, L: sizes.num_layers };
  if (precision === "int8" && letters.V * 3 * letters.H > LIMITS.table) {
    throw new ArtifactError(
      `the table of int8 has vocabulary x 3 hidden = ${letters.V * 3 * letters.H} numbers; the limit is ${LIMITS.table}`,
    );
  }
  const graph = GRAPHS[precision][letters.L > 1 ? 1 : 0];
  return [
    ...integerField(1, LIMITS.ir),
    ...textField(2, LIMITS.producer),
    ...textField(3, LIMITS.version),
    ...messageField(7, renderGraph(graph, letters)),
    ...messageField(8, [...textField(1, ""), ...integerField(2, LIMITS.opset)]),
  ];
}

/**
 * The fields of a GraphProto.
 * @param {any[]} graph name, doc, nodes, tensors, inputs, outputs
 * @param {{[letter: string]: number}} sizes
 * @returns {Part[]}
 */
function renderGraph([name, doc, nodes, tensors, inputs, outputs], sizes) {
  return [
    ...unfolded(nodes, sizes.L).flatMap((node) => messageField(1, renderNode(node, sizes))),
    ...textField(2, name),
    ...unfolded(tensors, sizes.L).flatMap((tensor) => messageField(5, renderTensor(tensor, sizes))),
    ...textField(10, doc),
    ...inputs.flatMap((/** @type {any[]} */ value) => messageField(11, renderValue(value, sizes))),
    ...outputs.flatMap((/** @type {any[]} */ value) => messageField(12, renderValue(value, sizes))),
  ];
}

/** @type {(node: any[], sizes: {[letter: string]: number}) => Part[]} */
function renderNode([name, op, inputs, outputs, attributes = {}, doc = ""], sizes) {
  return [
    ...words(inputs, sizes.L).flatMap((word) => textField(1, word)),
    ...words(outputs, sizes.L).flatMap((word) => textField(2, word)),
    ...textField(3, name),
    ...textField(4, op),
    ...Object.keys(attributes).flatMap((key) =>
      messageField(5, [...textField(1, key), ...renderAttribute(attributes[key], sizes)]),
    ),
    ...(doc ? textField(6, doc) : []),
  ];
}

/** @type {(value: any, sizes: {[letter: string]: number}) => Part[]} */
function renderAttribute(value, sizes) {
  if (typeof value === "string")
    return [...integerField(3, evaluate(value, sizes)), ...integerField(20, ATTRIBUTE_INT)];
  if (typeof value[0] === "string")
    return [...messageField(6, renderGraph(value, sizes)), ...integerField(20, ATTRIBUTE_GRAPH)];
  return [
    ...value.flatMap((/** @type {number} */ each) => integerField(8, each)),
    ...integerField(20, ATTRIBUTE_INTS),
  ];
}

/** @type {(tensor: any[], sizes: {[letter: string]: number}) => Part[]} */
function renderTensor([name, kind, shape, value], sizes) {
  const dims = words(shape, sizes.L).map((word) => evaluate(word, sizes));
  const count = dims.reduce((all, dim) => all * dim, 1);
  /** @type {Part} */
  let data = { name, kind, count };
  if (value !== undefined) {
    data = new Uint8Array(count * WIDTH[kind]);
    const view = new DataView(data.buffer);
    words(value, sizes.L).forEach((word, place) => {
      const number = evaluate(word, sizes);
      if (kind === FLOAT) view.setFloat32(4 * place, number, true);
      else if (kind === INT64) view.setBigInt64(8 * place, BigInt(number), true);
      else view.setUint8(place, number);
    });
  }
  return [
    ...dims.flatMap((dim) => integerField(1, dim)),
    ...integerField(2, kind),
    ...textField(8, name),
    ...messageField(9, [data]),
  ];
}

/** @type {(value: any[], sizes: {[letter: string]: number}) => Part[]} */
function renderValue([name, kind, shape], sizes) {
  const dims = words(shape, sizes.L).flatMap((word) =>
    messageField(1, /^[a-z]/.test(word) ? textField(2, word) : integerField(1, evaluate(word, sizes))),
  );
  return [
    ...textField(1, name),
    ...messageField(2, messageField(1, [...integerField(1, kind), ...messageField(2, dims)])),
  ];
}

/** @type {(expression: string, sizes: {[letter: string]: number}) => number} */
const evaluate = (expression, sizes) =>
  expression.split("*").reduce((all, factor) => all * (sizes[factor] ?? Number(factor)), 1);

/**
 * An item with # as the layer and @ as the number of layers, but for groups that have layers of their own.
 * @type {(item: any, layer: number, layers: number) => any}
 */
function named(item, layer, layers) {
  if (Array.isArray(item)) return item.map((each) => named(each, layer, layers));
  if (typeof item !== "string") return item;
  return item.replace(/\*\S+|([#@])([+-]\d)?/g, (all, from, more = "0") =>
    from ? String((from === "#" ? layer : layers) + Number(more)) : all,
  );
}

/**
 * Items of a description, with those that stand for all layers written out.
 * @param {any[]} items
 * @param {number} layers
 * @returns {any[]}
 */
function unfolded(items, layers) {
  return items.flatMap((item) => {
    if (item[0] !== "*") return [named(item, 0, layers)];
    const [, first, block] = item;
    return Array.from({ length: layers - first }, (_, place) => named(block, first + place, layers)).flat();
  });
}

/** @type {(joined: string, layers: number) => string[]} */
function words(joined, layers) {
  const items = joined === "" ? [] : joined.split(" ");
  return items.flatMap((word) => {
    const group = /^\*(\d):(.*)$/.exec(word);
    return group ? unfolded([["*", Number(group[1]), group[2].split(",")]], layers) : [word];
  });
}

/**
 * The weights in the bytes before the metadata, by name: float32, or int8.
 * @param {Uint8Array} data
 * @param {Part[]} form
 * @returns {{[name: string]: Float32Array | Int8Array}}
 */
export function readWeights(data, form) {
  const size = form.reduce((all, part) => all + partSize(part), 0);
  // first of all, so that no size that a file claims costs memory
  if (data.length !== size) {
    throw new ArtifactError(
      `the graph has ${data.length} bytes; train-export writes ${size} for this configuration`,
    );
  }
  /** @type {{[name: string]: Float32Array | Int8Array}} */
  const weights = {};
  let halves;
  let at = 0;
  for (const part of form) {
    const bytes = data.subarray(at, at + partSize(part));
    if (part instanceof Uint8Array) {
      const wrong = part.findIndex((byte, place) => byte !== bytes[place]);
      if (wrong >= 0)
        throw new ArtifactError(
          `the graph is not the one that train-export writes: it differs at byte ${at + wrong}`,
        );
    } else if (part.kind === INT8) {
      weights[part.name] = new Int8Array(bytes.slice().buffer);
    } else if (part.kind === FLOAT) {
      weights[part.name] = checkFinite(new Float32Array(bytes.slice().buffer), part.name);
    } else {
      const table = (halves ??= halfTable());
      const numbers = Float32Array.from(new Uint16Array(bytes.slice().buffer), (half) => table[half]);
      weights[part.name.replace("_fp16", "")] = checkFinite(numbers, part.name);
    }
    at += bytes.length;
  }
  return weights;
}

/** Every number of half precision, by its bits. */
function halfTable() {
  return Float32Array.from({ length: 1 << 16 }, (_, bits) => {
    const [exponent, rest] = [(bits >> 10) & 31, bits & 1023];
    const size =
      exponent === 31
        ? rest
          ? NaN
          : Infinity
        : exponent
          ? (1024 + rest) * 2 ** (exponent - 25)
          : rest * 2 ** -24;
    return bits >> 15 ? -size : size;
  });
}

/** @type {(numbers: Float32Array, name: string) => Float32Array} */
function checkFinite(numbers, name) {
  const wrong = numbers.findIndex((number) => !(Math.abs(number) <= LIMITS.weight));
  if (wrong < 0) return numbers;
  throw new ArtifactError(
    `tensor ${name}: number ${wrong} is ${numbers[wrong]}; a weight is finite and at most ${LIMITS.weight} either way`,
  );
}
