// The step: weights in WebAssembly memory, products and gates by kernel.wat.

import { ChargenError } from "./errors.js";

/** @import { Json } from "./errors.js" */

// Made of kernel.wat by kernel.mjs
const KERNEL = "AGFzbQEAAAABIQRgBn9/f39/fwBgB39/f39/f38AYAV/f39/fwBgAXsBewITAQdjaGFyZ2VuBm1lbW9yeQIAAQMKCQABAgMDAwIDAwc9BAdwcm9kdWN0AAAPaW50ZWdlcl9wcm9kdWN0AAEKcGFzc19nYXRlcwACEHBhc3NfZ2F0ZXNfYWxpa2UABgqgEwmoAgICfwV7IAEgBWohBwNAIAL9AAQAIQkgAv0ABBAhCiAC/QAEICELIAL9AAQwIQwgASEGA0AgBv0JAgAhCCAJIAggAP0ABAD95gH95AEhCSAKIAggAP0ABBD95gH95AEhCiALIAggAP0ABCD95gH95AEhCyAMIAggAP0ABDD95gH95AEhDCAG/QkCBCEIIAkgCCAA/QAEQP3mAf3kASEJIAogCCAA/QAEUP3mAf3kASEKIAsgCCAA/QAEYP3mAf3kASELIAwgCCAA/QAEcP3mAf3kASEMIABBgAFqIQAgBkEIaiEGIAYgB0kNAAsgAyAJ/QsEACADIAr9CwQQIAMgC/0LBCAgAyAM/QsEMCACQcAAaiECIANBwABqIQMgBEEBayEEIAQNAAsL4wICAn8FeyABIAZqIQgDQP0MAAAAAAAAAAAAAAAAAAAAACEK/QwAAAAAAAAAAAAAAAAAAAAAIQv9DAAAAAAAAAAAAAAAAAAAAAAhDP0MAAAAAAAAAAAAAAAAAAAAACENIAEhBwNAIAf9CQIAIQkgCiAJIAD9AQMA/boB/a4BIQogCyAJIAD9AQMI/boB/a4BIQsgDCAJIAD9AQMQ/boB/a4BIQwgDSAJIAD9AQMY/boB/a4BIQ0gAEEgaiEAIAdBBGohByAHIAhJDQALIAQgA/0ABAAgAv0ABAAgCv36Af3mAf3kAf0LBAAgBCAD/QAEECAC/QAEECAL/foB/eYB/eQB/QsEECAEIAP9AAQgIAL9AAQgIAz9+gH95gH95AH9CwQgIAQgA/0ABDAgAv0ABDAgDf36Af3mAf3kAf0LBDAgAkHAAGohAiADQcAAaiEDIARBwABqIQQgBUEBayEFIAUNAAsLlwECAn8BeyAEQQF0IQYgAyAEaiEFA0AgASAGav0ABAAgAiAGav0ABAAgASAEav0ABAAgAiAEav0ABAD95AEQA/3mAf3kARAEIQcgAyAHIAH9AAQAIAL9AAQA/eQBEAMgAP0ABAAgB/3lAf3mAf3kAf0LBAAgAEEQaiEAIAFBEGohASACQRBqIQIgA0EQaiEDIAMgBUkNAAsLMwD9DAAAgD8AAIA/AACAPwAAgD/9DAAAgD8AAIA/AACAPwAAgD8gAP3hARAF/eQB/ecBC0oA/QwAAIA/AACAPwAAgD8AAIA//QwAAABAAAAAQAAAAEAAAABA/QwAAIA/AACAPwAAgD8AAIA/IAAgAP3kARAF/eQB/ecB/eUBC/sCAQJ7/QwAAK7CAACuwgAArsIAAK7C/QwAAK5CAACuQgAArkIAAK5CIAD96AH96QEhACAA/Qw7qrg/O6q4PzuquD87qrg//eYB/WohASAAIAH9DACAMT8AgDE/AIAxPwCAMT/95gH95QEgAf0Mg4BeuYOAXrmDgF65g4Beuf3mAf3lASEC/QxnaVA5Z2lQOWdpUDlnaVA5IQAgACAC/eYB/QzOQ7c6zkO3Os5DtzrOQ7c6/eQBIQAgACAC/eYB/QwIiQg8CIkIPAiJCDwIiQg8/eQBIQAgACAC/eYB/QzBqSo9wakqPcGpKj3BqSo9/eQBIQAgACAC/eYB/Qyqqio+qqoqPqqqKj6qqio+/eQBIQAgACAC/eYB/QwAAAA/AAAAPwAAAD8AAAA//eQBIQAgAiAC/eYBIAD95gEgAv0MAACAPwAAgD8AAIA/AACAP/3kAf3kASEAIAAgAf34Af0MfwAAAH8AAAB/AAAAfwAAAP2uAUEX/asB/eYBC9ABAgJ/AnsgBEEBdCEGIAMgBGohBQNAIAH9XQMA/V8gAv1dAwD9X/3wAf1e/V8QByEHIAEgBGr9XQMA/V8gAiAEav1dAwD9X/3wAf1e/V8QByEIIAggAiAGav1dAwD9X/3yAf1e/V8hCCAIIAEgBmr9XQMA/V/98AH9Xv1fEAghCCAHIAD9XQMA/V8gCP3xAf1e/V/98gH9Xv1fIQcgAyAIIAf98AH9Xv1bAwAAIABBCGohACABQQhqIQEgAkEIaiECIANBCGohAyADIAVJDQALC/QDAQN7/QwAAAAAAAAywAAAAAAAADLA/QwAAAAAAAAyQAAAAAAAADJAIAD99AH99QEhACAAIAD98gH9Xv1fIQH9DAAAACCqBsg9AAAAIKoGyD0hAiACIAH98gH9DAAAAGDZCX8+AAAAYNkJfz798AH9Xv1fIQIgAiAB/fIB/QwAAABgJ+gPPwAAAGAn6A8//fAB/V79XyECIAIgAf3yAf0MAAAAAKtvgT8AAAAAq2+BP/3wAf1e/V8hAiACIAH98gH9DAAAAEDmx88/AAAAQObHzz/98AH9Xv1fIQIgAiAA/fIB/V79XyEC/QwAAACgnnhlPQAAAKCeeGU9IQMgAyAB/fIB/QwAAABgT744PgAAAGBPvjg+/fAB/V79XyEDIAMgAf3yAf0MAAAAoPti2j4AAACg+2LaPv3wAf1e/V8hAyADIAH98gH9DAAAAOCn4ls/AAAA4KfiWz/98AH9Xv1fIQMgAyAB/fIB/QwAAAAAw+e9PwAAAADD570//fAB/V79XyEDIAMgAf3yAf0MAAAAgObH7z8AAACA5sfvP/3wAf1e/V8hA/0MAAAAAAAA8D8AAAAAAADwP/0MAAAAAAAAAAAAAAAAAAAAAP0MAAAAAAAA4D8AAAAAAADgPyACIAP98wH9Xv1f/fAB/V79X/31Af30AQuxAwEDe/0MAAAAAAAAIsAAAAAAAAAiwP0MAAAAAAAAIkAAAAAAAAAiQCAA/fQB/fUBIQAgACAA/fIB/V79XyEB/QwAAAAAuOSzvAAAAAC45LO8IQIgAiAB/fIB/QwAAADAbyZMPQAAAMBvJkw9/fAB/V79XyECIAIgAf3yAf0MAAAA4P+m170AAADg/6bXvf3wAf1e/V8hAiACIAH98gH9DAAAACAIgGs+AAAAIAiAaz798AH9Xv1fIQIgAiAB/fIB/QwAAABAaSjvPgAAAEBpKO8+/fAB/V79XyECIAIgAf3yAf0MAAAAoL3hRD8AAACgveFEP/3wAf1e/V8hAiACIAH98gH9DAAAAIA7C3Q/AAAAgDsLdD/98AH9Xv1fIQIgAiAA/fIB/V79XyEC/QwAAAAAexq0PgAAAAB7GrQ+IQMgAyAB/fIB/QwAAADAuhIfPwAAAMC6Eh8//fAB/V79XyEDIAMgAf3yAf0MAAAAoECVYj8AAACgQJViP/3wAf1e/V8hAyADIAH98gH9DAAAAKA7C3Q/AAAAoDsLdD/98AH9Xv1fIQMgAiAD/fMB/V79Xws=";

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
    this.first = this.integers ? firstRows(config, weights) : null;
    const sources = this.integers ? integerSources(config, weights) : floatSources(config, weights);
    const { kernel, matrices, vectors } = layOut(sources, this);
    this.kernel = kernel;
    this.passGates = this.integers ? kernel.pass_gates_alike : kernel.pass_gates;
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
    const { hidden, layers, matrices, passGates } = this;
    const { before, fed, after, above, inputs, recurrent, scores } = this.vectors;
    inputs.numbers.set(this.rowOf(token));
    for (let layer = 0; layer < layers; layer++) {
      const own = state.subarray(layer * hidden, (layer + 1) * hidden);
      before.numbers.set(own);
      this.feed(before.numbers, fed.numbers);
      this.multiply(matrices.recurrent[layer], fed.at, recurrent.at);
      if (layer) this.multiply(matrices.input[layer], above.at, inputs.at);
      passGates(before.at, inputs.at, recurrent.at, after.at, 4 * hidden);
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
    const row = this.first ? this.first(token) : this.multiplyEmbedding(token);
    this.kept += 3 * this.hidden;
    if (this.kept > ROWS_KEPT) [this.rows, this.kept] = [[], 3 * this.hidden];
    return (this.rows[token] = row);
  }

  /** @param {number} token */
  multiplyEmbedding(token) {
    const { embedded, inputs } = this.vectors;
    embedded.numbers.set(this.embedding.subarray(token * this.width, (token + 1) * this.width));
    this.multiply(this.matrices.input[0], embedded.at, inputs.at);
    return inputs.numbers.slice();
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
 * The first layer's input product of a token of int8, in float32 as the graph has it. A row is summed in
 * the order of ONNX Runtime, some columns at a time, each product and sum together: then the states that
 * follow are rounded alike.
 * @param {Json} config
 * @param {Weights} weights
 * @returns {(token: number) => Float32Array}
 */
function firstRows({ hidden_size, embedding_dim }, weights) {
  const { embedding, embedding_scale, layer_0_W, layer_0_W_scale, layer_0_bias } = weights;
  const rows = 3 * hidden_size;
  const matrix = Float32Array.from(layer_0_W, (number, place) => number * layer_0_W_scale[place % rows]);
  let together = 128; // columns, of MLAS, which takes more where there are few rows
  for (let few = 64; rows < embedding_dim && few >= rows && few >= 16; few /= 2) together *= 2;
  return (token) => {
    const sums = new Float32Array(rows);
    for (let begin = 0; begin < embedding_dim; begin += together) {
      const part = new Float32Array(rows);
      for (let column = begin; column < Math.min(begin + together, embedding_dim); column++) {
        const x = Math.fround(embedding[token * embedding_dim + column] * embedding_scale[token]);
        for (let row = 0, at = column * rows; row < rows; row++) part[row] += x * matrix[at + row];
      }
      for (let row = 0; row < rows; row++) sums[row] += part[row];
    }
    return sums.map((sum, row) => sum + layer_0_bias[row]);
  };
}

/**
 * The matrices of int8.
 * @param {Json} config
 * @param {Weights} weights
 * @returns {Sources}
 */
function integerSources({ hidden_size, num_layers, tokens }, weights) {
  const [rows, transposed] = [3 * hidden_size, true];
  const of = (/** @type {number} */ layer, /** @type {string} */ name) => weights[`layer_${layer}_${name}`];
  return {
    input: Array.from({ length: num_layers }, (_, layer) => {
      if (!layer) return { rows: 0, columns: 0, data: [], transposed, bias: [] }; // firstRows stands for it
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
