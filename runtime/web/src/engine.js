// The step: weights in WebAssembly memory, products and gates by kernel.wat.

import { ChargenError } from "./errors.js";

/** @import { Json } from "./errors.js" */

// Made of kernel.wat by kernel.mjs
const KERNEL = "AGFzbQEAAAABIQRgBn9/f39/fwBgB39/f39/f38AYAV/f39/fwBgAXsBewITAQdjaGFyZ2VuBm1lbW9yeQIAAQMHBgABAgMDAwcqAwdwcm9kdWN0AAAPaW50ZWdlcl9wcm9kdWN0AAEKcGFzc19nYXRlcwACCqUKBqgCAgJ/BXsgASAFaiEHA0AgAv0ABAAhCSAC/QAEECEKIAL9AAQgIQsgAv0ABDAhDCABIQYDQCAG/QkCACEIIAkgCCAA/QAEAP3mAf3kASEJIAogCCAA/QAEEP3mAf3kASEKIAsgCCAA/QAEIP3mAf3kASELIAwgCCAA/QAEMP3mAf3kASEMIAb9CQIEIQggCSAIIAD9AARA/eYB/eQBIQkgCiAIIAD9AARQ/eYB/eQBIQogCyAIIAD9AARg/eYB/eQBIQsgDCAIIAD9AARw/eYB/eQBIQwgAEGAAWohACAGQQhqIQYgBiAHSQ0ACyADIAn9CwQAIAMgCv0LBBAgAyAL/QsEICADIAz9CwQwIAJBwABqIQIgA0HAAGohAyAEQQFrIQQgBA0ACwvjAgICfwV7IAEgBmohCANA/QwAAAAAAAAAAAAAAAAAAAAAIQr9DAAAAAAAAAAAAAAAAAAAAAAhC/0MAAAAAAAAAAAAAAAAAAAAACEM/QwAAAAAAAAAAAAAAAAAAAAAIQ0gASEHA0AgB/0JAgAhCSAKIAkgAP0BAwD9ugH9rgEhCiALIAkgAP0BAwj9ugH9rgEhCyAMIAkgAP0BAxD9ugH9rgEhDCANIAkgAP0BAxj9ugH9rgEhDSAAQSBqIQAgB0EEaiEHIAcgCEkNAAsgBCAD/QAEACAC/QAEACAK/foB/eYB/eQB/QsEACAEIAP9AAQQIAL9AAQQIAv9+gH95gH95AH9CwQQIAQgA/0ABCAgAv0ABCAgDP36Af3mAf3kAf0LBCAgBCAD/QAEMCAC/QAEMCAN/foB/eYB/eQB/QsEMCACQcAAaiECIANBwABqIQMgBEHAAGohBCAFQQFrIQUgBQ0ACwuXAQICfwF7IARBAXQhBiADIARqIQUDQCABIAZq/QAEACACIAZq/QAEACABIARq/QAEACACIARq/QAEAP3kARAD/eYB/eQBEAQhByADIAcgAf0ABAAgAv0ABAD95AEQAyAA/QAEACAH/eUB/eYB/eQB/QsEACAAQRBqIQAgAUEQaiEBIAJBEGohAiADQRBqIQMgAyAFSQ0ACwszAP0MAACAPwAAgD8AAIA/AACAP/0MAACAPwAAgD8AAIA/AACAPyAA/eEBEAX95AH95wELSgD9DAAAgD8AAIA/AACAPwAAgD/9DAAAAEAAAABAAAAAQAAAAED9DAAAgD8AAIA/AACAPwAAgD8gACAA/eQBEAX95AH95wH95QEL+wIBAnv9DAAArsIAAK7CAACuwgAArsL9DAAArkIAAK5CAACuQgAArkIgAP3oAf3pASEAIAD9DDuquD87qrg/O6q4PzuquD/95gH9aiEBIAAgAf0MAIAxPwCAMT8AgDE/AIAxP/3mAf3lASAB/QyDgF65g4BeuYOAXrmDgF65/eYB/eUBIQL9DGdpUDlnaVA5Z2lQOWdpUDkhACAAIAL95gH9DM5DtzrOQ7c6zkO3Os5Dtzr95AEhACAAIAL95gH9DAiJCDwIiQg8CIkIPAiJCDz95AEhACAAIAL95gH9DMGpKj3BqSo9wakqPcGpKj395AEhACAAIAL95gH9DKqqKj6qqio+qqoqPqqqKj795AEhACAAIAL95gH9DAAAAD8AAAA/AAAAPwAAAD/95AEhACACIAL95gEgAP3mASAC/QwAAIA/AACAPwAAgD8AAIA//eQB/eQBIQAgACAB/fgB/Qx/AAAAfwAAAH8AAAB/AAAA/a4BQRf9qwH95gEL";

const ROWS = 16; // that the kernel takes at a time
const ACTIVATION_SCALE = Math.fround(1 / 127); // of int8, whose zero point takes the middle of the range
const HALF_EVEN = 1.5 * 2 ** 52; // added and subtracted, it rounds to the nearest whole number, ties to even
const PAGE_BYTES = 65536; // of a memory
const LINE_BYTES = 64; // a line of the cache, at which matrices begin
const ROWS_KEPT = 1 << 22; // numbers of the first layer's products that are kept

/**
 * @typedef {object} Matrix A matrix in the kernel's memory; addresses in bytes.
 * @property {number} at
 * @property {number} blocks of sixteen rows
 * @property {number} pairs of columns
 * @property {number} scale of each row, where the numbers are integers, or 0
 * @property {number} bias of each row
 */
/**
 * @typedef {object} Source Where the numbers of a matrix come from.
 * @property {number} rows
 * @property {number} columns
 * @property {ArrayLike<number>} data
 * @property {boolean} transposed whether `data` goes column by column
 * @property {ArrayLike<number>} [scale] of each row, for integers
 * @property {ArrayLike<number>} bias
 */

/** @typedef {{input: Source[], recurrent: Source[], output: Source}} Sources by layer */
/** @typedef {{[name: string]: Float32Array | Int8Array}} Weights */

/** The step over the weights of a model. States are the callers'. */
export class Engine {
  /**
   * @param {Json} config
   * @param {Weights} weights
   */
  constructor(config, weights) {
    this.hidden = /** @type {number} */ (config.hidden_size);
    this.layers = /** @type {number} */ (config.num_layers);
    this.vocab = /** @type {number} */ (config.tokens.length);
    this.width = /** @type {number} */ (config.embedding_dim);
    this.integers = config.precision === "int8";
    this.embedding = weights.embedding;
    this.embeddingScale = weights.embedding_scale;
    const sources = this.integers ? integerSources(config, weights) : floatSources(config, weights);
    const { kernel, matrices, vectors } = layOut(sources, this);
    this.kernel = kernel;
    this.matrices = matrices;
    this.vectors = vectors;
    /** @type {(Float32Array | undefined)[]} the first layer's input products, by token */
    this.rows = [];
    this.kept = 0;
  }

  /**
   * Feed one token. The state is changed, the logits that are returned change with the next step.
   * @param {Float32Array} state [num_layers, hidden_size]
   * @param {number} token
   */
  step(state, token) {
    const { hidden, layers, matrices } = this;
    const { before, fed, after, above, inputs, recurrent, scores } = this.vectors;
    inputs.numbers.set(this.rowOf(token));
    for (let layer = 0; layer < layers; layer++) {
      const own = state.subarray(layer * hidden, (layer + 1) * hidden);
      before.numbers.set(own);
      this.feed(before.numbers, fed.numbers);
      this.multiply(matrices.recurrent[layer], fed.at, recurrent.at);
      if (layer) this.multiply(matrices.input[layer], above.at, inputs.at);
      this.kernel.pass_gates(before.at, inputs.at, recurrent.at, after.at, 4 * hidden);
      own.set(after.numbers);
      this.feed(after.numbers, above.numbers);
    }
    this.multiply(matrices.output, above.at, scores.at);
    return scores.numbers;
  }

  /** @type {(state: Float32Array, target: Float32Array | Int16Array) => void} */
  feed(state, target) {
    if (!this.integers) return; // both are the same numbers
    for (let i = 0; i < state.length; i++) {
      const level = Math.fround(state[i] / ACTIVATION_SCALE) + HALF_EVEN - HALF_EVEN;
      target[i] = level < -128 ? -128 : level > 127 ? 127 : level;
    }
  }

  /** @type {(matrix: Matrix, x: number, out: number) => void} */
  multiply({ at, blocks, pairs, scale, bias }, x, out) {
    if (scale) this.kernel.integer_product(at, x, scale, bias, out, blocks, pairs * 4);
    else this.kernel.product(at, x, bias, out, blocks, pairs * 8);
  }

  /**
   * The first layer's input product of a token, [3 hidden_size]; made when it is first needed.
   * @param {number} token
   */
  rowOf(token) {
    const found = this.rows[token];
    if (found) return found;
    const { width, embedding, embeddingScale } = this;
    const { embedded, inputs } = this.vectors;
    const scale = embeddingScale ? embeddingScale[token] : 1;
    for (let i = 0; i < width; i++) embedded.numbers[i] = embedding[token * width + i] * scale;
    this.multiply(this.matrices.input[0], embedded.at, inputs.at);
    this.kept += 3 * this.hidden;
    if (this.kept > ROWS_KEPT) [this.rows, this.kept] = [[], 3 * this.hidden];
    return (this.rows[token] = inputs.numbers.slice());
  }
}

/**
 * A memory with the matrices and vectors of a model, and the kernel over it.
 * @param {Sources} sources
 * @param {{hidden: number, vocab: number, width: number, integers: boolean}} sizes
 */
function layOut({ input, recurrent, output }, { hidden, vocab, width, integers }) {
  let size = LINE_BYTES; // no address is 0
  const room = (/** @type {number} */ bytes) => {
    const at = size;
    size += Math.ceil(bytes / LINE_BYTES) * LINE_BYTES;
    return at;
  };
  const place = (/** @type {Source} */ source) => {
    const [blocks, pairs] = [Math.ceil(source.rows / ROWS), Math.ceil(source.columns / 2)];
    const scale = source.scale ? room(4 * ROWS * blocks) : 0;
    const at = room(blocks * ROWS * pairs * 2 * (scale ? 1 : 4));
    return { source, at, blocks, pairs, scale, bias: room(4 * ROWS * blocks) };
  };
  const matrices = { input: input.map(place), recurrent: recurrent.map(place), output: place(output) };
  const vector = (/** @type {number} */ count) => ({ at: room(4 * Math.ceil(count / ROWS) * ROWS), count });
  const places = [hidden, hidden, hidden, hidden, width, 3 * hidden, 3 * hidden, vocab].map(vector);
  const { memory, kernel } = openKernel(size);
  for (const matrix of [...matrices.input, ...matrices.recurrent, matrices.output]) pack(memory, matrix);
  const floats = places.map(({ at, count }) => ({ at, numbers: new Float32Array(memory.buffer, at, count) }));
  const [before, after, , , embedded, inputs, recurrentSums, scores] = floats;
  // a state as the products take it: as it is, or in whole numbers
  const [fed, above] = integers
    ? places.slice(2, 4).map(({ at, count }) => ({ at, numbers: new Int16Array(memory.buffer, at, count) }))
    : [before, after];
  return {
    kernel,
    matrices,
    vectors: { before, fed, after, above, embedded, inputs, recurrent: recurrentSums, scores },
  };
}

/**
 * A memory of so many bytes, and the kernel over it.
 * @param {number} size
 */
function openKernel(size) {
  let memory;
  try {
    memory = new WebAssembly.Memory({ initial: Math.ceil(size / PAGE_BYTES) });
  } catch {
    throw new ChargenError(`there is not enough memory for the model, which needs ${size} bytes; take a smaller one`);
  }
  try {
    const bytes = Uint8Array.from(atob(KERNEL), (character) => character.charCodeAt(0));
    const { exports } = new WebAssembly.Instance(new WebAssembly.Module(bytes), { chargen: { memory } });
    return { memory, kernel: /** @type {{[name: string]: Function}} */ (/** @type {any} */ (exports)) };
  } catch (error) {
    const reason = /** @type {Error} */ (error).message;
    throw new ChargenError(`WebAssembly with SIMD does not run here (${reason}); browsers since 2023 and Node 20 have it`);
  }
}

/**
 * Put the numbers of a matrix where the kernel reads them.
 * @type {(memory: WebAssembly.Memory, matrix: Matrix & {source: Source}) => void}
 */
function pack(memory, { at, blocks, pairs, scale, bias, source }) {
  const { rows, columns, data, transposed, ...by } = source;
  new Float32Array(memory.buffer, bias, rows).set(by.bias);
  if (by.scale) new Float32Array(memory.buffer, scale, rows).set(by.scale);
  const size = blocks * ROWS * pairs * 2;
  const target = scale ? new Int8Array(memory.buffer, at, size) : new Float32Array(memory.buffer, at, size);
  const [down, right] = transposed ? [1, rows] : [columns, 1];
  for (let row = 0; row < rows; row++) {
    const [block, lane] = [Math.floor(row / ROWS) * pairs * 2 * ROWS, row % ROWS];
    for (let column = 0; column < columns; column++) {
      const place = scale ? ((column >> 1) * ROWS + lane) * 2 + (column & 1) : column * ROWS + lane;
      target[block + place] = data[row * down + column * right];
    }
  }
}

/**
 * The matrices of fp32 and fp16, whose numbers are float32 by now.
 * @param {Json} config
 * @param {Weights} weights
 * @returns {Sources}
 */
function floatSources({ hidden_size, num_layers, embedding_dim, tokens }, weights) {
  const rows = 3 * hidden_size;
  const part = (/** @type {string} */ name) =>
    Array.from({ length: num_layers }, (_, layer) => weights[`layer_${layer}_${name}`]);
  const biases = part("B");
  return {
    input: part("W").map((data, layer) => ({
      rows,
      columns: layer ? hidden_size : embedding_dim,
      data,
      transposed: false,
      bias: biases[layer].subarray(0, rows),
    })),
    recurrent: part("R").map((data, layer) => ({
      rows,
      columns: hidden_size,
      data,
      transposed: false,
      bias: biases[layer].subarray(rows),
    })),
    output: {
      rows: tokens.length,
      columns: hidden_size,
      data: weights.output_weight,
      transposed: true,
      bias: weights.output_bias,
    },
  };
}

/**
 * The matrices of int8; the first layer's input is multiplied in float32, as in the graph.
 * @param {Json} config
 * @param {Weights} weights
 * @returns {Sources}
 */
function integerSources({ hidden_size, num_layers, embedding_dim, tokens }, weights) {
  const [rows, transposed] = [3 * hidden_size, true];
  const first = Float32Array.from(
    weights.layer_0_W,
    (number, place) => number * weights.layer_0_W_scale[place % rows],
  );
  const of = (/** @type {number} */ layer, /** @type {string} */ name) => weights[`layer_${layer}_${name}`];
  return {
    input: Array.from({ length: num_layers }, (_, layer) => {
      if (!layer)
        return { rows, columns: embedding_dim, data: first, transposed, bias: weights.layer_0_bias };
      const bias = new Float32Array(rows);
      bias.set(of(layer, "bias"), 2 * hidden_size); // of the new gate; those of the others are recurrent
      return {
        rows,
        columns: hidden_size,
        data: of(layer, "W"),
        transposed,
        scale: of(layer, "W_scale"),
        bias,
      };
    }),
    recurrent: Array.from({ length: num_layers }, (_, layer) => ({
      rows,
      columns: hidden_size,
      data: of(layer, "R"),
      transposed,
      scale: weights.recurrent_scale.subarray(layer * rows, (layer + 1) * rows),
      bias: weights.recurrent_bias.subarray(layer * rows, (layer + 1) * rows),
    })),
    output: {
      rows: tokens.length,
      columns: hidden_size,
      data: weights.output_weight,
      transposed,
      scale: weights.output_scale,
      bias: weights.output_bias,
    },
  };
}
