// Run chargen's character models in browsers, workers, Node and Deno, with no other code.
// Made of src/ by python -m tests.tools.web; see runtime/WEB.md. MIT licence.

class ChargenError extends Error {
	get name() {
		return this.constructor.name;
	}
}
class ArtifactError extends ChargenError {}
class OptionError extends ChargenError {}
class UnknownCharacterError extends ChargenError {
	constructor(character, position, known) {
		super(
			`the model does not know the character ${shown(character)} (${codePoint(character)}) at ` +
				`position ${position}, only ${known} others; leave it out, or set unknown to skip or replace`,
		);
		this.character = character;
		this.position = position;
	}
}
function codePoint(character) {
	const digits = (character.codePointAt(0)).toString(16).toUpperCase();
	return `U+${digits.padStart(4, "0")}`;
}
function shown(value) {
	if (typeof value === "bigint") return String(value);
	if (typeof value === "object" && value !== null) return Array.isArray(value) ? "a list" : "an object";
	if (typeof value !== "string") return typeof value === "function" ? "a function" : String(value);
	const text = JSON.stringify([...value].slice(0, 60).join(""));
	return text.replace(
		/[^\x20-\x7e\u00a1-\ud7ff\ue000-\ufffd]/gu,
		(c) => `\\u{${c.codePointAt(0)?.toString(16)}}`,
	);
}
const countCharacters = (text) => [...text].length;

const KERNEL = "AGFzbQEAAAABIQRgBn9/f39/fwBgB39/f39/f38AYAV/f39/fwBgAXsBewITAQdjaGFyZ2VuBm1lbW9yeQIAAQMKCQABAgMDAwIDAwc9BAdwcm9kdWN0AAAPaW50ZWdlcl9wcm9kdWN0AAEKcGFzc19nYXRlcwACEHBhc3NfZ2F0ZXNfYWxpa2UABgqgEwmoAgICfwV7IAEgBWohBwNAIAL9AAQAIQkgAv0ABBAhCiAC/QAEICELIAL9AAQwIQwgASEGA0AgBv0JAgAhCCAJIAggAP0ABAD95gH95AEhCSAKIAggAP0ABBD95gH95AEhCiALIAggAP0ABCD95gH95AEhCyAMIAggAP0ABDD95gH95AEhDCAG/QkCBCEIIAkgCCAA/QAEQP3mAf3kASEJIAogCCAA/QAEUP3mAf3kASEKIAsgCCAA/QAEYP3mAf3kASELIAwgCCAA/QAEcP3mAf3kASEMIABBgAFqIQAgBkEIaiEGIAYgB0kNAAsgAyAJ/QsEACADIAr9CwQQIAMgC/0LBCAgAyAM/QsEMCACQcAAaiECIANBwABqIQMgBEEBayEEIAQNAAsL4wICAn8FeyABIAZqIQgDQP0MAAAAAAAAAAAAAAAAAAAAACEK/QwAAAAAAAAAAAAAAAAAAAAAIQv9DAAAAAAAAAAAAAAAAAAAAAAhDP0MAAAAAAAAAAAAAAAAAAAAACENIAEhBwNAIAf9CQIAIQkgCiAJIAD9AQMA/boB/a4BIQogCyAJIAD9AQMI/boB/a4BIQsgDCAJIAD9AQMQ/boB/a4BIQwgDSAJIAD9AQMY/boB/a4BIQ0gAEEgaiEAIAdBBGohByAHIAhJDQALIAQgA/0ABAAgAv0ABAAgCv36Af3mAf3kAf0LBAAgBCAD/QAEECAC/QAEECAL/foB/eYB/eQB/QsEECAEIAP9AAQgIAL9AAQgIAz9+gH95gH95AH9CwQgIAQgA/0ABDAgAv0ABDAgDf36Af3mAf3kAf0LBDAgAkHAAGohAiADQcAAaiEDIARBwABqIQQgBUEBayEFIAUNAAsLlwECAn8BeyAEQQF0IQYgAyAEaiEFA0AgASAGav0ABAAgAiAGav0ABAAgASAEav0ABAAgAiAEav0ABAD95AEQA/3mAf3kARAEIQcgAyAHIAH9AAQAIAL9AAQA/eQBEAMgAP0ABAAgB/3lAf3mAf3kAf0LBAAgAEEQaiEAIAFBEGohASACQRBqIQIgA0EQaiEDIAMgBUkNAAsLMwD9DAAAgD8AAIA/AACAPwAAgD/9DAAAgD8AAIA/AACAPwAAgD8gAP3hARAF/eQB/ecBC0oA/QwAAIA/AACAPwAAgD8AAIA//QwAAABAAAAAQAAAAEAAAABA/QwAAIA/AACAPwAAgD8AAIA/IAAgAP3kARAF/eQB/ecB/eUBC/sCAQJ7/QwAAK7CAACuwgAArsIAAK7C/QwAAK5CAACuQgAArkIAAK5CIAD96AH96QEhACAA/Qw7qrg/O6q4PzuquD87qrg//eYB/WohASAAIAH9DACAMT8AgDE/AIAxPwCAMT/95gH95QEgAf0Mg4BeuYOAXrmDgF65g4Beuf3mAf3lASEC/QxnaVA5Z2lQOWdpUDlnaVA5IQAgACAC/eYB/QzOQ7c6zkO3Os5DtzrOQ7c6/eQBIQAgACAC/eYB/QwIiQg8CIkIPAiJCDwIiQg8/eQBIQAgACAC/eYB/QzBqSo9wakqPcGpKj3BqSo9/eQBIQAgACAC/eYB/Qyqqio+qqoqPqqqKj6qqio+/eQBIQAgACAC/eYB/QwAAAA/AAAAPwAAAD8AAAA//eQBIQAgAiAC/eYBIAD95gEgAv0MAACAPwAAgD8AAIA/AACAP/3kAf3kASEAIAAgAf34Af0MfwAAAH8AAAB/AAAAfwAAAP2uAUEX/asB/eYBC9ABAgJ/AnsgBEEBdCEGIAMgBGohBQNAIAH9XQMA/V8gAv1dAwD9X/3wAf1e/V8QByEHIAEgBGr9XQMA/V8gAiAEav1dAwD9X/3wAf1e/V8QByEIIAggAiAGav1dAwD9X/3yAf1e/V8hCCAIIAEgBmr9XQMA/V/98AH9Xv1fEAghCCAHIAD9XQMA/V8gCP3xAf1e/V/98gH9Xv1fIQcgAyAIIAf98AH9Xv1bAwAAIABBCGohACABQQhqIQEgAkEIaiECIANBCGohAyADIAVJDQALC/QDAQN7/QwAAAAAAAAywAAAAAAAADLA/QwAAAAAAAAyQAAAAAAAADJAIAD99AH99QEhACAAIAD98gH9Xv1fIQH9DAAAACCqBsg9AAAAIKoGyD0hAiACIAH98gH9DAAAAGDZCX8+AAAAYNkJfz798AH9Xv1fIQIgAiAB/fIB/QwAAABgJ+gPPwAAAGAn6A8//fAB/V79XyECIAIgAf3yAf0MAAAAAKtvgT8AAAAAq2+BP/3wAf1e/V8hAiACIAH98gH9DAAAAEDmx88/AAAAQObHzz/98AH9Xv1fIQIgAiAA/fIB/V79XyEC/QwAAACgnnhlPQAAAKCeeGU9IQMgAyAB/fIB/QwAAABgT744PgAAAGBPvjg+/fAB/V79XyEDIAMgAf3yAf0MAAAAoPti2j4AAACg+2LaPv3wAf1e/V8hAyADIAH98gH9DAAAAOCn4ls/AAAA4KfiWz/98AH9Xv1fIQMgAyAB/fIB/QwAAAAAw+e9PwAAAADD570//fAB/V79XyEDIAMgAf3yAf0MAAAAgObH7z8AAACA5sfvP/3wAf1e/V8hA/0MAAAAAAAA8D8AAAAAAADwP/0MAAAAAAAAAAAAAAAAAAAAAP0MAAAAAAAA4D8AAAAAAADgPyACIAP98wH9Xv1f/fAB/V79X/31Af30AQuxAwEDe/0MAAAAAAAAIsAAAAAAAAAiwP0MAAAAAAAAIkAAAAAAAAAiQCAA/fQB/fUBIQAgACAA/fIB/V79XyEB/QwAAAAAuOSzvAAAAAC45LO8IQIgAiAB/fIB/QwAAADAbyZMPQAAAMBvJkw9/fAB/V79XyECIAIgAf3yAf0MAAAA4P+m170AAADg/6bXvf3wAf1e/V8hAiACIAH98gH9DAAAACAIgGs+AAAAIAiAaz798AH9Xv1fIQIgAiAB/fIB/QwAAABAaSjvPgAAAEBpKO8+/fAB/V79XyECIAIgAf3yAf0MAAAAoL3hRD8AAACgveFEP/3wAf1e/V8hAiACIAH98gH9DAAAAIA7C3Q/AAAAgDsLdD/98AH9Xv1fIQIgAiAA/fIB/V79XyEC/QwAAAAAexq0PgAAAAB7GrQ+IQMgAyAB/fIB/QwAAADAuhIfPwAAAMC6Eh8//fAB/V79XyEDIAMgAf3yAf0MAAAAoECVYj8AAACgQJViP/3wAf1e/V8hAyADIAH98gH9DAAAAKA7C3Q/AAAAoDsLdD/98AH9Xv1fIQMgAiAD/fMB/V79Xws=";
const ROWS = 16;
const ACTIVATION_SCALE = Math.fround(1 / 127);
const HALF_EVEN = 1.5 * 2 ** 52;
const PAGE_BYTES = 65536;
const LINE_BYTES = 64;
const ROWS_KEPT = 1 << 22;
class Engine {
	constructor(config, weights) {
		this.hidden = (config.hidden_size);
		this.layers = (config.num_layers);
		this.vocab = (config.tokens.length);
		this.width = (config.embedding_dim);
		this.integers = config.precision === "int8";
		this.embedding = weights.embedding;
		this.first = this.integers ? firstRows(config, weights) : null;
		const sources = this.integers ? integerSources(config, weights) : floatSources(config, weights);
		const { kernel, matrices, vectors } = layOut(sources, this);
		this.kernel = kernel;
		this.passGates = this.integers ? kernel.pass_gates_alike : kernel.pass_gates;
		this.matrices = matrices;
		this.vectors = vectors;
		this.rows = [];
		this.kept = 0;
	}
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
	feed(state, target) {
		if (!this.integers) return;
		for (let i = 0; i < state.length; i++) {
			const level = Math.fround(state[i] / ACTIVATION_SCALE) + HALF_EVEN - HALF_EVEN;
			target[i] = level < -128 ? -128 : level > 127 ? 127 : level;
		}
	}
	multiply({ at, blocks, pairs, scale, bias }, x, out) {
		if (scale) this.kernel.integer_product(at, x, scale, bias, out, blocks, pairs * 4);
		else this.kernel.product(at, x, bias, out, blocks, pairs * 8);
	}
	rowOf(token) {
		const found = this.rows[token];
		if (found) return found;
		const row = this.first ? this.first(token) : this.multiplyEmbedding(token);
		this.kept += 3 * this.hidden;
		if (this.kept > ROWS_KEPT) [this.rows, this.kept] = [[], 3 * this.hidden];
		return (this.rows[token] = row);
	}
	multiplyEmbedding(token) {
		const { embedded, inputs } = this.vectors;
		embedded.numbers.set(this.embedding.subarray(token * this.width, (token + 1) * this.width));
		this.multiply(this.matrices.input[0], embedded.at, inputs.at);
		return inputs.numbers.slice();
	}
}
function layOut({ input, recurrent, output }, { hidden, vocab, width, integers }) {
	let size = LINE_BYTES;
	const room = (bytes) => {
		const at = size;
		size += Math.ceil(bytes / LINE_BYTES) * LINE_BYTES;
		return at;
	};
	const place = (source) => {
		const [blocks, pairs] = [Math.ceil(source.rows / ROWS), Math.ceil(source.columns / 2)];
		const scale = source.scale ? room(4 * ROWS * blocks) : 0;
		const at = room(blocks * ROWS * pairs * 2 * (scale ? 1 : 4));
		return { source, at, blocks, pairs, scale, bias: room(4 * ROWS * blocks) };
	};
	const matrices = { input: input.map(place), recurrent: recurrent.map(place), output: place(output) };
	const vector = (count) => ({ at: room(4 * Math.ceil(count / ROWS) * ROWS), count });
	const places = [hidden, hidden, hidden, hidden, width, 3 * hidden, 3 * hidden, vocab].map(vector);
	const { memory, kernel } = openKernel(size);
	for (const matrix of [...matrices.input, ...matrices.recurrent, matrices.output]) pack(memory, matrix);
	const floats = places.map(({ at, count }) => ({ at, numbers: new Float32Array(memory.buffer, at, count) }));
	const [before, after, , , embedded, inputs, recurrentSums, scores] = floats;
	const [fed, above] = integers
		? places.slice(2, 4).map(({ at, count }) => ({ at, numbers: new Int16Array(memory.buffer, at, count) }))
		: [before, after];
	return {
		kernel,
		matrices,
		vectors: { before, fed, after, above, embedded, inputs, recurrent: recurrentSums, scores },
	};
}
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
		return { memory, kernel: ((exports)) };
	} catch (error) {
		const reason = (error).message;
		throw new ChargenError(`WebAssembly with SIMD does not run here (${reason}); browsers since 2023 and Node 20 have it`);
	}
}
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
function floatSources({ hidden_size, num_layers, embedding_dim, tokens }, weights) {
	const rows = 3 * hidden_size;
	const part = (name) =>
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
function firstRows({ hidden_size, embedding_dim }, weights) {
	const { embedding, embedding_scale, layer_0_W, layer_0_W_scale, layer_0_bias } = weights;
	const rows = 3 * hidden_size;
	const matrix = Float32Array.from(layer_0_W, (number, place) => number * layer_0_W_scale[place % rows]);
	let together = 128;
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
function integerSources({ hidden_size, num_layers, tokens }, weights) {
	const [rows, transposed] = [3 * hidden_size, true];
	const of = (layer, name) => weights[`layer_${layer}_${name}`];
	return {
		input: Array.from({ length: num_layers }, (_, layer) => {
			if (!layer) return { rows: 0, columns: 0, data: [], transposed, bias: [] };
			const bias = new Float32Array(rows);
			bias.set(of(layer, "bias"), 2 * hidden_size);
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

const LIMITS = {format:2,ir:8,opset:17,producer:"chargen",version:"format 2",keys:["chargen.format","chargen.config","chargen.training","chargen.parity","description","author","license","version","task","chargen.sha256"],flat:["description","author","license","version","task"],file:1073741824,metadata:2097152,entries:64,fields:128,weight:1000000.0,table:67108864,depth:16,openings:4096,colons:16384,digits:20,length:1099511627776,row:18446744073709551615n,stops:16,stop:256,letters:"0-9A-Za-zÀ-῿Ⰰ-⿿぀-﻿０-９Ａ-Ｚａ-ｚｦ-􏿿",run:32,magic:"chargen-state-2\n"};
const OPTIONS = {temperature:{low:1e-06,high:1000000.0,whole:false,above:false,special:[0,"greedy"],off:null,range:"0 (greedy), or 1e-06 to 1e+06"},top_k:{low:0,high:9223372036854775807n,whole:true,above:false,special:null,off:0,range:"0 (off) to 2**63 - 1"},top_p:{low:0,high:1,whole:false,above:true,special:null,off:1,range:"a value above 0, up to 1 (off)"},min_p:{low:0,high:1,whole:false,above:false,special:null,off:0,range:"0 (off) to 1"},repetition_penalty:{low:0,high:100,whole:false,above:true,special:null,off:1,range:"a value above 0, up to 100 (1 is off)"},seed:{low:0,high:18446744073709551615n,whole:true,above:false,special:null,off:null,range:"0 to 2**64 - 1"}};
const LINE = {type:"string",maxLength:4096,pattern:"^[^\\x00-\\x1f\\x7f-\\x9f\\u2028\\u2029\\u202a-\\u202e\\u2066-\\u2069]*$"};
const SHA256 = {type:"string",minLength:64,maxLength:64,pattern:"^[0-9a-f]{64}$"};
const COUNT = {type:"integer",minimum:0,maximum:9223372036854775807n};
const NUMBER = {type:"integer",minimum:1,maximum:9223372036854775807n};
const NATS = {type:"number",minimum:0};
const RECORDS = {config:{type:"object",properties:{unit:{enum:["char","byte","word","bpe"]},tokens:{type:"array",minItems:1,maxItems:65536,uniqueItems:true,items:{type:"string",maxLength:256}},merges:{type:"array",maxItems:131072,items:{type:"integer",minimum:0,maximum:65535}},end:{type:"boolean"},separator:{type:"string",maxLength:256},embedding_dim:{type:"integer",minimum:1,maximum:65536},hidden_size:{type:"integer",minimum:1,maximum:65536},num_layers:{type:"integer",minimum:1,maximum:64},precision:LINE,unknown:{enum:["error","skip","replace"]},replacement:{type:"string",maxLength:256},sampling:{type:"object",properties:{temperature:{type:"number",minimum:0,maximum:1000000.0},top_k:COUNT,top_p:{type:"number",exclusiveMinimum:0,maximum:1},min_p:{type:"number",minimum:0,maximum:1},repetition_penalty:{type:"number",exclusiveMinimum:0,maximum:100},stop:{type:"array",maxItems:16,items:{type:"string",minLength:1,maxLength:256}}}}}},training:{type:"object",properties:{corpora:{type:"array",minItems:1,maxItems:256,items:{type:"object",properties:{name:LINE,sha256:SHA256,characters:NUMBER}}},characters:NUMBER,training_characters:NUMBER,split:{type:"object",properties:{documents:{enum:["none","lines","blank","files"]},count:COUNT,holdout:{enum:["tail","spread","none","file"]}}},validation:{anyOf:[{type:"object",properties:{nats_per_char:NATS,bits_per_char:NATS,characters:NUMBER,documents:COUNT,protocol:LINE}},{type:"null"}]},baseline:{anyOf:[{type:"object",properties:{method:LINE,order:{type:"integer",minimum:1,maximum:64},nats_per_char:NATS}},{type:"null"}]},samples:{anyOf:[{type:"object",properties:{count:NUMBER,share_in_corpus:{type:"number",minimum:0,maximum:1},share_of_doubles:{type:"number",minimum:0,maximum:1},searched:{type:"number",minimum:0,maximum:1}}},{type:"null"}]},score_quantiles:{anyOf:[{type:"object",properties:{window:{anyOf:[NUMBER,{type:"null"}]},count:NUMBER,levels:{type:"array",minItems:2,maxItems:1024,items:{type:"number",minimum:0,maximum:1}},nats_per_char:{type:"array",minItems:2,maxItems:1024,items:NATS},by_length:{type:"array",maxItems:64,items:{type:"object",properties:{characters:NATS,nats_per_char:NATS,spread:{type:"number",minimum:1e-06}}}},oddness:{type:"array",maxItems:1024,items:{type:"number"}}}},{type:"null"}]},base:{anyOf:[{type:"object",properties:{name:LINE,sha256:SHA256}},{type:"null"}]},steps:COUNT,exported_step:COUNT,epochs:NATS,processes:NUMBER,device:LINE,seed:{type:"integer",minimum:0,maximum:18446744073709551615n},notes:{type:"array",maxItems:64,items:LINE},settings:{type:"object",maxProperties:256,values:{anyOf:[LINE,{type:"integer",minimum:-9223372036854775808n,maximum:9223372036854775807n},{type:"number"},{type:"boolean"},{type:"null"}]}},versions:{type:"object",maxProperties:64,values:LINE}}},parity:{type:"object",properties:{against:LINE,steps:NUMBER,batches:{type:"array",maxItems:64,items:NUMBER},largest_logits_difference:NATS,largest_hidden_difference:NATS,largest_prefill_difference:NATS,greedy:{anyOf:[{type:"object",properties:{characters:COUNT,temperature:NATS,seed:COUNT,equal:{type:"boolean"},near_ties:COUNT}},{type:"null"}]},seeded:{anyOf:[{type:"object",properties:{characters:COUNT,temperature:NATS,seed:COUNT,equal:{type:"boolean"},near_ties:COUNT}},{type:"null"}]},gate:{anyOf:[{type:"object",properties:{fp32_sha256:SHA256,text:LINE,held_out:{type:"boolean"},characters:NUMBER,protocol:LINE,fp32_nats_per_char:NATS,nats_per_char:NATS,loss_increase:{type:"number"},max_loss_increase:NATS,greedy_agreement:{type:"number",minimum:0,maximum:1}}},{type:"null"}]},vectors:{type:"array",maxItems:16,items:{type:"object",properties:{tokens:{type:"array",minItems:1,maxItems:4096,items:{type:"integer",minimum:0,maximum:65535}},stride:{type:"integer",minimum:1,maximum:65536},logits:{type:"array",minItems:1,maxItems:1024,items:{type:"number"}},greedy:{type:"array",maxItems:4096,items:{type:"integer",minimum:0,maximum:65535}}}}},versions:{type:"object",maxProperties:64,values:LINE}}},header:{type:"object",properties:{model:SHA256,options:{type:"object",properties:{temperature:{type:"number",minimum:0,maximum:1000000.0},top_k:COUNT,top_p:{type:"number",exclusiveMinimum:0,maximum:1},min_p:{type:"number",minimum:0,maximum:1},repetition_penalty:{type:"number",exclusiveMinimum:0,maximum:100},stop:{type:"array",maxItems:16,items:{type:"string",minLength:1,maxLength:256}}}},seed:{type:"integer",minimum:0,maximum:18446744073709551615n},row:{type:"integer",minimum:0,maximum:18446744073709551615n},drawn:COUNT,fed:{type:"boolean"},unknown:{anyOf:[{enum:["error","skip","replace"]},{type:"null"}]},seen:{type:"array",maxItems:65536,uniqueItems:true,items:{type:"integer",minimum:0,maximum:65535}},rest:{type:"string",maxLength:33},ready:{type:"string",maxLength:256},partial:{type:"array",maxItems:3,items:{type:"integer",minimum:0,maximum:65535}}}}};
const TOLERANCES = {fp32:{logits:0.0001,hidden:0.0001,vectors:0.0001},fp16:{logits:0.0001,hidden:0.0001,vectors:0.0001},int8:{logits:0.0001,hidden:0.0001,vectors:0.1}};
const GRAPHS = {fp32:[["chargen_step","A GRU language model: as many steps as it is fed.",[["embed","Gather","embedding token","embedded",{},"[batch, time, embedding_dim]"],["time_first","Transpose","embedded","layer_0_in",{perm:[1,0,2]},"[time, batch, embedding_dim]"],["layer_first","Transpose","hidden","hidden_by_layer",{perm:[1,0,2]},"[num_layers, batch, hidden_size]"],["layer_0_gru","GRU","layer_0_in layer_0_W layer_0_R layer_0_B  hidden_by_layer","layer_0_out4 layer_0_next_hidden",{hidden_size:"H",linear_before_reset:"1"},"[time, 1, batch, hidden_size], [1, batch, hidden_size]"],["layer_0_squeeze","Squeeze","layer_0_out4 direction","layer_1_in",{},"one direction only"],["batch_first_hidden","Transpose","layer_0_next_hidden","next_hidden",{perm:[1,0,2]},"[batch, num_layers, hidden_size]"],["batch_first","Transpose","layer_1_in","features",{perm:[1,0,2]},"[batch, time, hidden_size]"],["project","MatMul","features output_weight","scores",{},"to the vocabulary"],["bias","Add","scores output_bias","logits",{},"[batch, time, vocab_size], before temperature"]],[["embedding",1,"V E"],["direction",7,"1","1"],["layer_0_W",1,"1 H*3 E"],["layer_0_R",1,"1 H*3 H"],["layer_0_B",1,"1 H*6"],["output_weight",1,"H V"],["output_bias",1,"V"]],[["token",7,"batch time"],["hidden",1,"batch 1 H"]],[["logits",1,"batch time V"],["next_hidden",1,"batch 1 H"]]],["chargen_step","A GRU language model: as many steps as it is fed.",[["embed","Gather","embedding token","embedded",{},"[batch, time, embedding_dim]"],["time_first","Transpose","embedded","layer_0_in",{perm:[1,0,2]},"[time, batch, embedding_dim]"],["layer_first","Transpose","hidden","hidden_by_layer",{perm:[1,0,2]},"[num_layers, batch, hidden_size]"],["split_hidden","Split","hidden_by_layer","*0:layer_#_hidden",{axis:"0"},"one state a layer: [1, batch, hidden_size] each"],["*",0,[["layer_#_gru","GRU","layer_#_in layer_#_W layer_#_R layer_#_B  layer_#_hidden","layer_#_out4 layer_#_next_hidden",{hidden_size:"H",linear_before_reset:"1"},"[time, 1, batch, hidden_size], [1, batch, hidden_size]"],["layer_#_squeeze","Squeeze","layer_#_out4 direction","layer_#+1_in",{},"one direction only"]]],["join_hidden","Concat","*0:layer_#_next_hidden","next_hidden_by_layer",{axis:"0"},"[num_layers, batch, hidden_size]"],["batch_first_hidden","Transpose","next_hidden_by_layer","next_hidden",{perm:[1,0,2]},"[batch, num_layers, hidden_size]"],["batch_first","Transpose","layer_@_in","features",{perm:[1,0,2]},"[batch, time, hidden_size]"],["project","MatMul","features output_weight","scores",{},"to the vocabulary"],["bias","Add","scores output_bias","logits",{},"[batch, time, vocab_size], before temperature"]],[["embedding",1,"V E"],["direction",7,"1","1"],["layer_0_W",1,"1 H*3 E"],["*",1,[["layer_#-1_R",1,"1 H*3 H"],["layer_#-1_B",1,"1 H*6"],["layer_#_W",1,"1 H*3 H"]]],["layer_@-1_R",1,"1 H*3 H"],["layer_@-1_B",1,"1 H*6"],["output_weight",1,"H V"],["output_bias",1,"V"]],[["token",7,"batch time"],["hidden",1,"batch L H"]],[["logits",1,"batch time V"],["next_hidden",1,"batch L H"]]]],fp16:[["chargen_step","A GRU language model: as many steps as it is fed.",[["embedding_cast","Cast","embedding_fp16","embedding",{to:"1"},"stored in half precision"],["layer_0_W_cast","Cast","layer_0_W_fp16","layer_0_W",{to:"1"},"stored in half precision"],["layer_0_R_cast","Cast","layer_0_R_fp16","layer_0_R",{to:"1"},"stored in half precision"],["layer_0_B_cast","Cast","layer_0_B_fp16","layer_0_B",{to:"1"},"stored in half precision"],["output_weight_cast","Cast","output_weight_fp16","output_weight",{to:"1"},"stored in half precision"],["output_bias_cast","Cast","output_bias_fp16","output_bias",{to:"1"},"stored in half precision"],["embed","Gather","embedding token","embedded",{},"[batch, time, embedding_dim]"],["time_first","Transpose","embedded","layer_0_in",{perm:[1,0,2]},"[time, batch, embedding_dim]"],["layer_first","Transpose","hidden","hidden_by_layer",{perm:[1,0,2]},"[num_layers, batch, hidden_size]"],["layer_0_gru","GRU","layer_0_in layer_0_W layer_0_R layer_0_B  hidden_by_layer","layer_0_out4 layer_0_next_hidden",{hidden_size:"H",linear_before_reset:"1"},"[time, 1, batch, hidden_size], [1, batch, hidden_size]"],["layer_0_squeeze","Squeeze","layer_0_out4 direction","layer_1_in",{},"one direction only"],["batch_first_hidden","Transpose","layer_0_next_hidden","next_hidden",{perm:[1,0,2]},"[batch, num_layers, hidden_size]"],["batch_first","Transpose","layer_1_in","features",{perm:[1,0,2]},"[batch, time, hidden_size]"],["project","MatMul","features output_weight","scores",{},"to the vocabulary"],["bias","Add","scores output_bias","logits",{},"[batch, time, vocab_size], before temperature"]],[["embedding_fp16",10,"V E"],["direction",7,"1","1"],["layer_0_W_fp16",10,"1 H*3 E"],["layer_0_R_fp16",10,"1 H*3 H"],["layer_0_B_fp16",10,"1 H*6"],["output_weight_fp16",10,"H V"],["output_bias_fp16",10,"V"]],[["token",7,"batch time"],["hidden",1,"batch 1 H"]],[["logits",1,"batch time V"],["next_hidden",1,"batch 1 H"]]],["chargen_step","A GRU language model: as many steps as it is fed.",[["embedding_cast","Cast","embedding_fp16","embedding",{to:"1"},"stored in half precision"],["*",0,[["layer_#_W_cast","Cast","layer_#_W_fp16","layer_#_W",{to:"1"},"stored in half precision"],["layer_#_R_cast","Cast","layer_#_R_fp16","layer_#_R",{to:"1"},"stored in half precision"],["layer_#_B_cast","Cast","layer_#_B_fp16","layer_#_B",{to:"1"},"stored in half precision"]]],["output_weight_cast","Cast","output_weight_fp16","output_weight",{to:"1"},"stored in half precision"],["output_bias_cast","Cast","output_bias_fp16","output_bias",{to:"1"},"stored in half precision"],["embed","Gather","embedding token","embedded",{},"[batch, time, embedding_dim]"],["time_first","Transpose","embedded","layer_0_in",{perm:[1,0,2]},"[time, batch, embedding_dim]"],["layer_first","Transpose","hidden","hidden_by_layer",{perm:[1,0,2]},"[num_layers, batch, hidden_size]"],["split_hidden","Split","hidden_by_layer","*0:layer_#_hidden",{axis:"0"},"one state a layer: [1, batch, hidden_size] each"],["*",0,[["layer_#_gru","GRU","layer_#_in layer_#_W layer_#_R layer_#_B  layer_#_hidden","layer_#_out4 layer_#_next_hidden",{hidden_size:"H",linear_before_reset:"1"},"[time, 1, batch, hidden_size], [1, batch, hidden_size]"],["layer_#_squeeze","Squeeze","layer_#_out4 direction","layer_#+1_in",{},"one direction only"]]],["join_hidden","Concat","*0:layer_#_next_hidden","next_hidden_by_layer",{axis:"0"},"[num_layers, batch, hidden_size]"],["batch_first_hidden","Transpose","next_hidden_by_layer","next_hidden",{perm:[1,0,2]},"[batch, num_layers, hidden_size]"],["batch_first","Transpose","layer_@_in","features",{perm:[1,0,2]},"[batch, time, hidden_size]"],["project","MatMul","features output_weight","scores",{},"to the vocabulary"],["bias","Add","scores output_bias","logits",{},"[batch, time, vocab_size], before temperature"]],[["embedding_fp16",10,"V E"],["direction",7,"1","1"],["layer_0_W_fp16",10,"1 H*3 E"],["*",1,[["layer_#-1_R_fp16",10,"1 H*3 H"],["layer_#-1_B_fp16",10,"1 H*6"],["layer_#_W_fp16",10,"1 H*3 H"]]],["layer_@-1_R_fp16",10,"1 H*3 H"],["layer_@-1_B_fp16",10,"1 H*6"],["output_weight_fp16",10,"H V"],["output_bias_fp16",10,"V"]],[["token",7,"batch time"],["hidden",1,"batch L H"]],[["logits",1,"batch time V"],["next_hidden",1,"batch L H"]]]],int8:[["chargen_step","A GRU language model in int8: as many steps as it is fed.",[["embedding_integers","Cast","embedding","embedding_integers",{to:"1"}],["vectors","Mul","embedding_integers embedding_scale","vectors"],["layer_0_W_integers","Cast","layer_0_W","layer_0_W_integers",{to:"1"}],["layer_0_W_float","Mul","layer_0_W_integers layer_0_W_scale","layer_0_W_float"],["products","MatMul","vectors layer_0_W_float","products"],["table","Add","products layer_0_bias","table"],["time_first","Transpose","token","token_by_time",{perm:[1,0]}],["input_by_time","Gather","table token_by_time","input_by_time"],["steps","Scan","hidden input_by_time","next_hidden logits_by_time",{body:["one_step","One step of every row.",[["state_quantised","QuantizeLinear","state activation_scale activation_zero","state_quantised"],["layer_0_R_sums","MatMulInteger","state_quantised layer_0_R activation_zero","layer_0_R_sums"],["recurrent_products_integers","Cast","layer_0_R_sums","recurrent_products_integers",{to:"1"}],["recurrent_products","Mul","recurrent_products_integers recurrent_scale","recurrent_products"],["recurrent","Add","recurrent_products recurrent_bias","recurrent"],["layer_0_recurrent_gates","Split","recurrent input_sizes","layer_0_recurrent_gates layer_0_recurrent_new",{axis:"2"}],["layer_0_input_gates","Split","layer_0_input input_sizes","layer_0_input_gates layer_0_input_new",{axis:"2"}],["layer_0_gate_sums","Add","layer_0_input_gates layer_0_recurrent_gates","layer_0_gate_sums"],["layer_0_gates","Sigmoid","layer_0_gate_sums","layer_0_gates"],["layer_0_update","Split","layer_0_gates","layer_0_update layer_0_reset",{axis:"2"}],["layer_0_kept","Mul","layer_0_reset layer_0_recurrent_new","layer_0_kept"],["layer_0_new_sums","Add","layer_0_input_new layer_0_kept","layer_0_new_sums"],["layer_0_new","Tanh","layer_0_new_sums","layer_0_new"],["layer_0_change","Sub","state layer_0_new","layer_0_change"],["layer_0_carried","Mul","layer_0_update layer_0_change","layer_0_carried"],["next_state","Add","layer_0_new layer_0_carried","next_state"],["next_state_quantised","QuantizeLinear","next_state activation_scale activation_zero","next_state_quantised"],["output_weight_sums","MatMulInteger","next_state_quantised output_weight activation_zero","output_weight_sums"],["output_products_integers","Cast","output_weight_sums","output_products_integers",{to:"1"}],["output_products","Mul","output_products_integers output_scale","output_products"],["scores","Add","output_products output_bias","scores"],["step_logits","Squeeze","scores time_axis","step_logits"]],[["layer_0_R",3,"H H*3"],["recurrent_scale",1,"H*3"],["recurrent_bias",1,"H*3"],["output_weight",3,"H V"],["output_scale",1,"V"],["output_bias",1,"V"],["activation_scale",1,"","0.007874015718698502"],["activation_zero",2,"","128"],["input_sizes",7,"2","H*2 H"],["time_axis",7,"1","1"]],[["state",1,"batch 1 H"],["layer_0_input",1,"batch 1 H*3"]],[["next_state",1,"batch 1 H"],["step_logits",1,"batch V"]]],num_scan_inputs:"1"},"one step after the other"],["batch_first","Transpose","logits_by_time","logits",{perm:[1,0,2]}]],[["embedding",3,"V 1 E"],["embedding_scale",1,"V 1 1"],["layer_0_W",3,"E H*3"],["layer_0_W_scale",1,"H*3"],["layer_0_bias",1,"H*3"]],[["token",7,"batch time"],["hidden",1,"batch 1 H"]],[["logits",1,"batch time V"],["next_hidden",1,"batch 1 H"]]],["chargen_step","A GRU language model in int8: as many steps as it is fed.",[["embedding_integers","Cast","embedding","embedding_integers",{to:"1"}],["vectors","Mul","embedding_integers embedding_scale","vectors"],["layer_0_W_integers","Cast","layer_0_W","layer_0_W_integers",{to:"1"}],["layer_0_W_float","Mul","layer_0_W_integers layer_0_W_scale","layer_0_W_float"],["products","MatMul","vectors layer_0_W_float","products"],["table","Add","products layer_0_bias","table"],["time_first","Transpose","token","token_by_time",{perm:[1,0]}],["input_by_time","Gather","table token_by_time","input_by_time"],["steps","Scan","hidden input_by_time","next_hidden logits_by_time",{body:["one_step","One step of every row.",[["state_quantised","QuantizeLinear","state activation_scale activation_zero","state_quantised"],["layer_0_old","Split","state","*0:layer_#_old",{axis:"1"}],["layer_0_fed","Split","state_quantised","*0:layer_#_fed",{axis:"1"}],["*",0,[["layer_#_R_sums","MatMulInteger","layer_#_fed layer_#_R activation_zero","layer_#_R_sums"]]],["recurrent_sums","Concat","*0:layer_#_R_sums","recurrent_sums",{axis:"2"}],["recurrent_products_integers","Cast","recurrent_sums","recurrent_products_integers",{to:"1"}],["recurrent_products","Mul","recurrent_products_integers recurrent_scale","recurrent_products"],["recurrent","Add","recurrent_products recurrent_bias","recurrent"],["layer_0_recurrent_gates","Split","recurrent recurrent_sizes","*0:layer_#_recurrent_gates,layer_#_recurrent_new",{axis:"2"}],["layer_0_input_gates","Split","layer_0_input input_sizes","layer_0_input_gates layer_0_input_new",{axis:"2"}],["layer_0_gate_sums","Add","layer_0_input_gates layer_0_recurrent_gates","layer_0_gate_sums"],["layer_0_gates","Sigmoid","layer_0_gate_sums","layer_0_gates"],["layer_0_update","Split","layer_0_gates","layer_0_update layer_0_reset",{axis:"2"}],["layer_0_kept","Mul","layer_0_reset layer_0_recurrent_new","layer_0_kept"],["layer_0_new_sums","Add","layer_0_input_new layer_0_kept","layer_0_new_sums"],["*",1,[["layer_#-1_new","Tanh","layer_#-1_new_sums","layer_#-1_new"],["layer_#-1_change","Sub","layer_#-1_old layer_#-1_new","layer_#-1_change"],["layer_#-1_carried","Mul","layer_#-1_update layer_#-1_change","layer_#-1_carried"],["layer_#-1_state","Add","layer_#-1_new layer_#-1_carried","layer_#-1_state"],["layer_#-1_state_quantised","QuantizeLinear","layer_#-1_state activation_scale activation_zero","layer_#-1_state_quantised"],["layer_#_W_sums","MatMulInteger","layer_#-1_state_quantised layer_#_W activation_zero","layer_#_W_sums"],["layer_#_input_integers","Cast","layer_#_W_sums","layer_#_input_integers",{to:"1"}],["layer_#_input","Mul","layer_#_input_integers layer_#_W_scale","layer_#_input"],["layer_#_input_gates","Split","layer_#_input input_sizes","layer_#_input_gates layer_#_input_new",{axis:"2"}],["layer_#_gate_sums","Add","layer_#_input_gates layer_#_recurrent_gates","layer_#_gate_sums"],["layer_#_gates","Sigmoid","layer_#_gate_sums","layer_#_gates"],["layer_#_update","Split","layer_#_gates","layer_#_update layer_#_reset",{axis:"2"}],["layer_#_kept","Mul","layer_#_reset layer_#_recurrent_new","layer_#_kept"],["layer_#_input_new_biased","Add","layer_#_input_new layer_#_bias","layer_#_input_new_biased"],["layer_#_new_sums","Add","layer_#_input_new_biased layer_#_kept","layer_#_new_sums"]]],["layer_@-1_new","Tanh","layer_@-1_new_sums","layer_@-1_new"],["layer_@-1_change","Sub","layer_@-1_old layer_@-1_new","layer_@-1_change"],["layer_@-1_carried","Mul","layer_@-1_update layer_@-1_change","layer_@-1_carried"],["layer_@-1_state","Add","layer_@-1_new layer_@-1_carried","layer_@-1_state"],["layer_@-1_state_quantised","QuantizeLinear","layer_@-1_state activation_scale activation_zero","layer_@-1_state_quantised"],["next_state","Concat","*0:layer_#_state","next_state",{axis:"1"}],["output_weight_sums","MatMulInteger","layer_@-1_state_quantised output_weight activation_zero","output_weight_sums"],["output_products_integers","Cast","output_weight_sums","output_products_integers",{to:"1"}],["output_products","Mul","output_products_integers output_scale","output_products"],["scores","Add","output_products output_bias","scores"],["step_logits","Squeeze","scores time_axis","step_logits"]],[["*",1,[["layer_#-1_R",3,"H H*3"],["layer_#_W",3,"H H*3"],["layer_#_W_scale",1,"H*3"],["layer_#_bias",1,"H"]]],["layer_@-1_R",3,"H H*3"],["recurrent_scale",1,"H*L*3"],["recurrent_bias",1,"H*L*3"],["output_weight",3,"H V"],["output_scale",1,"V"],["output_bias",1,"V"],["activation_scale",1,"","0.007874015718698502"],["activation_zero",2,"","128"],["recurrent_sizes",7,"L*2","*0:H*2,H"],["input_sizes",7,"2","H*2 H"],["time_axis",7,"1","1"]],[["state",1,"batch L H"],["layer_0_input",1,"batch 1 H*3"]],[["next_state",1,"batch L H"],["step_logits",1,"batch V"]]],num_scan_inputs:"1"},"one step after the other"],["batch_first","Transpose","logits_by_time","logits",{perm:[1,0,2]}]],[["embedding",3,"V 1 E"],["embedding_scale",1,"V 1 1"],["layer_0_W",3,"E H*3"],["layer_0_W_scale",1,"H*3"],["layer_0_bias",1,"H*3"]],[["token",7,"batch time"],["hidden",1,"batch L H"]],[["logits",1,"batch time V"],["next_hidden",1,"batch L H"]]]]};

const MODEL_METADATA = 14;
const SEAL_KEY = "chargen.sha256";
const [VARINT, BYTES] = [0, 2];
const [FLOAT, UINT8, INT8, INT64, FLOAT16] = [1, 2, 3, 7, 10];
const WIDTH = { [FLOAT]: 4, [UINT8]: 1, [INT8]: 1, [INT64]: 8, [FLOAT16]: 2 };
const [ATTRIBUTE_INT, ATTRIBUTE_GRAPH, ATTRIBUTE_INTS] = [2, 5, 7];
const utf8 = new TextEncoder();
function varint(value) {
	const bytes = [];
	for (; value >= 128; value = Math.floor(value / 128)) bytes.push((value % 128) + 128);
	return Uint8Array.from([...bytes, value]);
}
const partSize = (part) => (part instanceof Uint8Array ? part.length : part.count * WIDTH[part.kind]);
const integerField = (number, value) => [varint(number * 8 + VARINT), varint(value)];
const messageField = (number, parts) => [
	varint(number * 8 + BYTES),
	varint(parts.reduce((size, part) => size + partSize(part), 0)),
	...parts,
];
const textField = (number, value) => messageField(number, [utf8.encode(value)]);
function renderForm(precision, sizes) {
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
function renderGraph([name, doc, nodes, tensors, inputs, outputs], sizes) {
	return [
		...unfolded(nodes, sizes.L).flatMap((node) => messageField(1, renderNode(node, sizes))),
		...textField(2, name),
		...unfolded(tensors, sizes.L).flatMap((tensor) => messageField(5, renderTensor(tensor, sizes))),
		...textField(10, doc),
		...inputs.flatMap((value) => messageField(11, renderValue(value, sizes))),
		...outputs.flatMap((value) => messageField(12, renderValue(value, sizes))),
	];
}
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
function renderAttribute(value, sizes) {
	if (typeof value === "string")
		return [...integerField(3, evaluate(value, sizes)), ...integerField(20, ATTRIBUTE_INT)];
	if (typeof value[0] === "string")
		return [...messageField(6, renderGraph(value, sizes)), ...integerField(20, ATTRIBUTE_GRAPH)];
	return [
		...value.flatMap((each) => integerField(8, each)),
		...integerField(20, ATTRIBUTE_INTS),
	];
}
function renderTensor([name, kind, shape, value], sizes) {
	const dims = words(shape, sizes.L).map((word) => evaluate(word, sizes));
	const count = dims.reduce((all, dim) => all * dim, 1);
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
function renderValue([name, kind, shape], sizes) {
	const dims = words(shape, sizes.L).flatMap((word) =>
		messageField(1, /^[a-z]/.test(word) ? textField(2, word) : integerField(1, evaluate(word, sizes))),
	);
	return [
		...textField(1, name),
		...messageField(2, messageField(1, [...integerField(1, kind), ...messageField(2, dims)])),
	];
}
const evaluate = (expression, sizes) =>
	expression.split("*").reduce((all, factor) => all * (sizes[factor] ?? Number(factor)), 1);
function named(item, layer, layers) {
	if (Array.isArray(item)) return item.map((each) => named(each, layer, layers));
	if (typeof item !== "string") return item;
	return item.replace(/\*\S+|([#@])([+-]\d)?/g, (all, from, more = "0") =>
		from ? String((from === "#" ? layer : layers) + Number(more)) : all,
	);
}
function unfolded(items, layers) {
	return items.flatMap((item) => {
		if (item[0] !== "*") return [named(item, 0, layers)];
		const [, first, block] = item;
		return Array.from({ length: layers - first }, (_, place) => named(block, first + place, layers)).flat();
	});
}
function words(joined, layers) {
	const items = joined === "" ? [] : joined.split(" ");
	return items.flatMap((word) => {
		const group = /^\*(\d):(.*)$/.exec(word);
		return group ? unfolded([["*", Number(group[1]), group[2].split(",")]], layers) : [word];
	});
}
function readWeights(data, form) {
	const size = form.reduce((all, part) => all + partSize(part), 0);
	if (data.length !== size) {
		throw new ArtifactError(
			`the graph has ${data.length} bytes; train-export writes ${size} for this configuration`,
		);
	}
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
function checkFinite(numbers, name) {
	const wrong = numbers.findIndex((number) => !(Math.abs(number) <= LIMITS.weight));
	if (wrong < 0) return numbers;
	throw new ArtifactError(
		`tensor ${name}: number ${wrong} is ${numbers[wrong]}; a weight is finite and at most ${LIMITS.weight} either way`,
	);
}

const [LETTERS, MAX_RUN] = [LIMITS.letters, LIMITS.run];
const SPLIT = new RegExp(
	` ?[${LETTERS}]{1,${MAX_RUN}}| ?[^ ${LETTERS}]{1,${MAX_RUN}}| {1,${MAX_RUN}}(?= )| `,
	"gu",
);
const splitRuns = (text) => text.match(SPLIT) ?? [];

function parseObject(json, where) {
	const fail = (what) => {
		throw new ArtifactError(`${where} ${what}`);
	};
	const count = (of) => (json.match(of) ?? []).length;
	if (count(/[[{]/g) > LIMITS.openings) fail(`has more than ${LIMITS.openings} lists and objects`);
	if (count(/:/g) > LIMITS.colons) fail(`has more than ${LIMITS.colons} keys`);
	let at = 0;
	const next = () => {
		while (/^[ \t\n\r]$/.test(json[at])) at++;
		return json[at];
	};
	const skip = (character) => {
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
	const list = (depth) => {
		const values = [];
		for (skip("["); next() !== "]";) {
			if (values.length) skip(",");
			values.push(value(depth + 1));
		}
		at++;
		return values;
	};
	const object = (depth) => {
		const values = Object.create(null);
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
function kindOf(value) {
	if (typeof value === "bigint") return "integer";
	return value === null ? "null" : Array.isArray(value) ? "array" : typeof value;
}
function conform(schema, name, value) {
	const kind = kindOf(value);
	const refuse = (what) => {
		throw new ArtifactError(`${name} is ${shown(value)}; it must be ${what}`);
	};
	if (schema.anyOf) {
		const own = schema.anyOf.find((each) => each.type === kind);
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
		const items = value.map((each, place) =>
			conform(schema.items, `${name}[${place}]`, each),
		);
		if (schema.uniqueItems && new Set(items).size !== items.length)
			throw new ArtifactError(`${name} has a value twice`);
		return items;
	}
	return kind === "object" ? conformObject(schema, name, value) : value;
}
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
const close = (a, b, absolute = 0) =>
	Number.isFinite(b) && Math.abs(a - b) <= Math.max(1e-6 * Math.max(Math.abs(a), Math.abs(b)), absolute);
function configProblem({ unit, tokens, merges, end, separator, precision, replacement }) {
	const newer = "that needs a newer chargen.js";
	if (!Object.hasOwn(GRAPHS, precision))
		return `precision is ${shown(precision)}, none of ${Object.keys(GRAPHS).join(", ")}; ${newer}`;
	const own = end ? tokens.slice(0, -1) : tokens;
	if (end && (tokens.at(-1) !== "" || separator !== "" || !own.length)) {
		return "end is true, so the last of two or more tokens, and the separator, are empty";
	}
	const lengths = own.map(countCharacters);
	const longer = lengths.findIndex((length) => length !== 1);
	const single = PIECES.includes(unit) && longer >= 0 ? longer : own.length;
	const wrong = lengths.findIndex((length, place) =>
		place < single ? length !== 1 : length < 2,
	);
	if (wrong >= 0)
		return wrong < single
			? `tokens[${wrong}] has ${lengths[wrong]} characters; with the unit ${unit} it has 1`
			: `tokens[${wrong}] has ${lengths[wrong]} characters and comes after a longer one`;
	const characters = own.slice(0, single);
	if (!end && !own.slice(0, single).includes(separator))
		return `the separator ${shown(separator)} is not one character of the vocabulary`;
	if (!characters.includes(replacement))
		return `the replacement ${shown(replacement)} is not one character of the vocabulary`;
	if (PIECES.includes(unit)) return piecesProblem(unit, own, single, merges);
	if (unit === "byte" && (own.length !== 256 || own.some(isNoByte)))
		return "with the unit byte, the tokens are the 256 bytes, written U+0000 to U+00FF";
	return merges.length ? `with the unit ${unit} there are no pieces` : "";
}
const PIECES = ["word", "bpe"];
const isNoByte = (text, byte) => text !== String.fromCharCode(byte);
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
function trainingProblem({
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
		const lengths = by_length.map((each) => each.characters);
		if (lengths.some((each, place) => each <= lengths[place - 1]))
			return "score_quantiles: by_length does not rise";
		for (const numbers of [levels, nats_per_char, oddness]) {
			if (
				numbers.some((each, place) => each < numbers[place - 1])
			)
				return "score_quantiles do not rise";
		}
	}
	if (training_characters > characters)
		return `training_characters is ${training_characters}, but the corpus has ${characters}; ${again}`;
	if (corpora.some((corpus) => corpus.characters > characters))
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
function parityProblem(parity, { precision, tokens }) {
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

const POLICIES = RECORDS.config.properties.unknown.enum;
const DEFAULT_LENGTH = 200;
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
function checkWhole(name, value, low, high) {
	const whole = typeof value === "bigint" || Number.isInteger(value);
	if (!whole) throw new OptionError(`${name} must be a whole number, got ${shown(value)}`);
	if (!(value >= low && value <= high)) throw new OptionError(`${name} is ${value}; give ${low} to ${high}`);
	return value;
}
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
function checkOptions(given, vocabulary, defaults = {}) {
	const options = { ...defaults, stop: checkStops(given.stop ?? defaults.stop ?? []) };
	for (const name of Object.keys(OPTIONS)) {
		if (given[name] !== undefined && given[name] !== null) options[name] = checkOption(name, given[name]);
	}
	vocabulary.checkWritable(options.stop);
	return options;
}
function checkPolicy(unknown) {
	if (unknown === undefined || unknown === null || POLICIES.includes(unknown)) return unknown ?? null;
	throw new OptionError(`unknown is ${shown(unknown)}; choose one of ${POLICIES.join(", ")}`);
}

async function sha256(data) {
	const hash = globalThis.crypto?.subtle
		? new Uint8Array(await crypto.subtle.digest("SHA-256", (data)))
		: sha256Here(data);
	return Array.from(hash, (byte) => byte.toString(16).padStart(2, "0")).join("");
}
function sha256Here(data) {
	const primes = [];
	for (let n = 2; primes.length < 64; n++) if (primes.every((prime) => n % prime)) primes.push(n);
	const fraction = (x) => ((x - Math.floor(x)) * 2 ** 32) | 0;
	const constants = Int32Array.from(primes, (prime) => fraction(Math.cbrt(prime)));
	const hash = Int32Array.from(primes.slice(0, 8), (prime) => fraction(Math.sqrt(prime)));
	const tail = new Uint8Array(128);
	const whole = data.length - (data.length % 64);
	tail.set(data.subarray(whole));
	tail[data.length - whole] = 128;
	const end = data.length - whole > 55 ? 128 : 64;
	new DataView(tail.buffer).setBigUint64(end - 8, BigInt(data.length) * 8n);
	const schedule = new Int32Array(64);
	for (let at = 0; at < whole; at += 64) digestBlock(hash, data, at, schedule, constants);
	for (let at = 0; at < end; at += 64) digestBlock(hash, tail, at, schedule, constants);
	const bytes = new DataView(new ArrayBuffer(32));
	hash.forEach((word, place) => bytes.setInt32(4 * place, word));
	return new Uint8Array(bytes.buffer);
}
function digestBlock(hash, data, at, w, k) {
	const turn = (x, n) => (x >>> n) | (x << (32 - n));
	for (let i = 0; i < 64; i++) {
		if (i < 16) {
			const j = at + 4 * i;
			w[i] = (data[j] << 24) | (data[j + 1] << 16) | (data[j + 2] << 8) | data[j + 3];
			continue;
		}
		const [x, y] = [w[i - 15], w[i - 2]];
		w[i] =
			w[i - 16] +
			w[i - 7] +
			(turn(x, 7) ^ turn(x, 18) ^ (x >>> 3)) +
			(turn(y, 17) ^ turn(y, 19) ^ (y >>> 10));
	}
	let [a, b, c, d, e, f, g, h] = hash;
	for (let i = 0; i < 64; i++) {
		const one = (h + (turn(e, 6) ^ turn(e, 11) ^ turn(e, 25)) + ((e & f) ^ (~e & g)) + k[i] + w[i]) | 0;
		const two = (turn(a, 2) ^ turn(a, 13) ^ turn(a, 22)) + ((a & b) ^ (a & c) ^ (b & c));
		[h, g, f, e, d, c, b, a] = [g, f, e, (d + one) | 0, c, b, a, (one + two) | 0];
	}
	[a, b, c, d, e, f, g, h].forEach((word, place) => (hash[place] += word));
}

const utf8Bytes = new TextEncoder();
class Vocabulary {
	#merges = new Map();
	constructor({ unit, tokens, merges, end, unknown, replacement }) {
		this.unit = unit;
		this.texts = tokens;
		this.end = end ? tokens.length - 1 : -1;
		this.unknown = unknown;
		this.tokenOf = new Map(
			tokens.map((text, token) => [text, token]),
		);
		this.tokenOf.delete("");
		this.replacement = this.tokenOf.get(replacement) ?? -1;
		this.hasPieces = unit === "word" || unit === "bpe";
		for (let at = 0; at < merges.length; at += 2) {
			const [one, other] = merges.slice(at, at + 2);
			const joined = this.tokenOf.get(tokens[one] + tokens[other]);
			this.#merges.set(pairOf(one, other), [at, (joined)]);
		}
	}
	get sizes() {
		return this.texts.map((text, token) =>
			text && this.unit === "byte" ? Number((token & 192) !== 128) : countCharacters(text),
		);
	}
	#knows(character) {
		return this.unit === "byte" ? !/\p{Surrogate}/u.test(character) : this.tokenOf.has(character);
	}
	#known(text) {
		return this.unit === "byte" ? [...utf8Bytes.encode(text)] : this.#tokensOf(splitRuns(text));
	}
	#tokensOf(runs) {
		return runs.flatMap((run) => {
			const whole = this.unit === "word" ? this.tokenOf.get(run) : undefined;
			const tokens = Array.from(run, (character) => (this.tokenOf.get(character)));
			return whole === undefined ? this.#joined(tokens) : [whole];
		});
	}
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
	lookUp(text) {
		if (typeof text !== "string") throw new OptionError(`a text must be a string, got ${kindOf(text)}`);
		if (this.unit === "char") return Array.from(text, (character) => this.tokenOf.get(character) ?? -1);
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
	encode(text, unknown) {
		return this.lookUp(this.knownPart(text, unknown));
	}
	encodeOpen(text, unknown) {
		if (!this.hasPieces) return [this.encode(text, unknown), ""];
		const runs = splitRuns(this.knownPart(text, unknown));
		const rest = runs.pop() ?? "";
		return [this.#tokensOf(runs), rest];
	}
	goesOn(token, text) {
		const own = this.texts[token];
		return own !== "" && (own.startsWith(text) || text.startsWith(own));
	}
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
const pairOf = (one, other) => one * 65536 + other;
class TokenDecoder {
	partial = [];
	constructor(vocabulary) {
		this.vocabulary = vocabulary;
	}
	feed(token) {
		const { unit, texts } = this.vocabulary;
		if (unit !== "byte") return texts[token];
		const [lead, second] = this.partial;
		let text = "";
		const isHalf = lead === 0xed && second >= 0xa0;
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
	restart(partial = []) {
		this.partial = [...partial];
	}
}
function goesOnAfter(lead, second, byte) {
	const least = second ? 0x80 : lead === 0xe0 ? 0xa0 : lead === 0xf0 ? 0x90 : 0x80;
	const most = !second && lead === 0xf4 ? 0x8f : 0xbf;
	return byte >= least && byte <= most;
}

function readVarint(data, begin, end) {
	let value = 0;
	for (let count = 0; count < 10; count++) {
		if (begin + count >= end)
			throw new ArtifactError(`the file is cut off inside the number at byte ${begin}`);
		const byte = data[begin + count];
		value += (byte & 127) * 2 ** (7 * count);
		if (byte < 128) {
			if ((count === 9 && byte > 1) || (byte === 0 && count)) break;
			return [value, begin + count + 1];
		}
	}
	throw new ArtifactError(`the number at byte ${begin} is longer than its value needs`);
}
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
function readMetadata(data) {
	const strict = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });
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
async function checkSeal(data) {
	const entry = messageField(MODEL_METADATA, [
		...textField(1, SEAL_KEY),
		...textField(2, "0".repeat(64)),
	]).flatMap((part) => [...(part)]);
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
function describeForeign(data) {
	const peek = (bytes) => new TextDecoder("latin1").decode(bytes);
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
async function parseArtifact(data) {
	if (data.length > LIMITS.file)
		throw new ArtifactError(`the file has ${data.length} bytes; the limit is ${LIMITS.file}`);
	const sha256 = await checkSeal(data);
	const { metadata, begin } = readMetadata(data);
	checkKeys(metadata, sha256);
	const read = (name) => {
		const key = `chargen.${name}`;
		return conform(RECORDS[name], key, parseObject((metadata.get(key)), key));
	};
	const [config, training, parity] = [read("config"), read("training"), read("parity")];
	const refuse = (name, problem) => {
		if (problem) throw new ArtifactError(`chargen.${name}: ${problem}`);
	};
	refuse("config", configProblem(config));
	try {
		config.sampling = checkOptions(config.sampling, new Vocabulary(config));
	} catch (error) {
		refuse("config", `sampling: ${(error).message}`);
	}
	refuse("training", trainingProblem(training));
	refuse("parity", parityProblem(parity, config));
	const form = renderForm(config.precision, { vocab_size: config.tokens.length, ...config });
	const weights = readWeights(data.subarray(0, begin), form);
	const properties = Object.fromEntries(
		LIMITS.flat.map((key) => [key, metadata.get(key) ?? ""]),
	);
	return { artifact: { sha256, config, training, parity, properties }, weights };
}
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
	const missing = LIMITS.keys.filter((key) => !metadata.has(key));
	if (missing.length)
		throw new ArtifactError(`the metadata lacks ${missing.join(", ")}; export it with train-export`);
	if (metadata.has("chargen.graph")) {
		throw new ArtifactError("the file is a sampler, for other programs; give the model that it was made of");
	}
	const keys = [...metadata.keys()];
	const unknown = keys.find((key) => !LIMITS.keys.includes(key));
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

const WORD = (1n << 64n) - 1n;
function uniformDraws(seed, row, block) {
	let [a, b, c, d] = [BigInt(block) + 1n, 0n, 0n, 0n];
	let [key, other] = [seed, row];
	for (let round = 0; round < 10; round++) {
		const [low, high] = [0xd2e7470ee14c6c93n * a, 0xca5a826395121157n * c];
		[a, b, c, d] = [(high >> 64n) ^ b ^ key, high & WORD, (low >> 64n) ^ d ^ other, low & WORD];
		[key, other] = [(key + 0x9e3779b97f4a7c15n) & WORD, (other + 0xbb67ae8584caa73bn) & WORD];
	}
	return [a, b, c, d].map((word) => Number(word >> 11n) * 2 ** -53);
}
class Sampler {
	constructor(options, size, row) {
		this.options = options;
		this.row = row;
		this.drawn = 0;
		this.seen = options.repetition_penalty === 1 ? null : new Uint8Array(size);
		this.weights = new Float64Array(size);
		this.draws = [0];
		this.block = -1;
	}
	see(tokens) {
		if (this.seen) for (const token of tokens) this.seen[token] = 1;
	}
	sample(logits) {
		const token = this.choose(logits);
		this.drawn++;
		if (this.seen) this.seen[token] = 1;
		return token;
	}
	choose(logits) {
		const { weights, options } = this;
		weights.set(logits);
		if (this.seen) penalise(weights, this.seen, options.repetition_penalty);
		if (options.temperature === 0) return weights.indexOf(largest(weights));
		const block = Math.floor(this.drawn / 4);
		if (block !== this.block) this.draws = uniformDraws(options.seed, this.row, (this.block = block));
		exponentiate(weights, options);
		let total = 0;
		for (let i = 0; i < weights.length; i++) total = weights[i] += total;
		const point = this.draws[this.drawn % 4] * total;
		let token = 0;
		while (weights[token] <= point) token++;
		return token;
	}
}
function largest(numbers) {
	let most = numbers[0];
	for (let i = 1; i < numbers.length; i++) if (numbers[i] > most) most = numbers[i];
	return most;
}
function penalise(logits, seen, penalty) {
	for (let i = 0; i < logits.length; i++)
		if (seen[i]) logits[i] = logits[i] > 0 ? logits[i] / penalty : logits[i] * penalty;
}
function exponentiate(weights, { temperature, top_k, top_p, min_p }) {
	const size = weights.length;
	if (temperature !== 1) for (let i = 0; i < size; i++) weights[i] /= temperature;
	const kth = top_k > 0 && top_k < size ? weights.slice().sort()[size - Number(top_k)] : -Infinity;
	const most = largest(weights);
	for (let i = 0; i < size; i++) weights[i] = weights[i] < kth ? 0 : Math.exp(weights[i] - most);
	if (top_p < 1) keepTopP(weights, top_p);
	if (min_p > 0) for (let i = 0; i < size; i++) if (weights[i] < min_p) weights[i] = 0;
}
function keepTopP(weights, p) {
	const order = byWeight(weights);
	let total = 0;
	const sums = order.map((token) => (total += weights[token]));
	for (let rank = 1; rank < order.length; rank++) if (sums[rank - 1] >= p * total) weights[order[rank]] = 0;
}
const byWeight = (weights) =>
	Array.from(weights.keys()).sort((a, b) => weights[b] - weights[a] || a - b);
class StopFinder {
	constructor(stops) {
		this.stops = stops.map((stop) => {
			const characters = [...stop];
			const shorter = [0];
			for (let at = 1, length = 0; at < characters.length; at++) {
				while (length && characters[at] !== characters[length]) length = shorter[length - 1];
				if (characters[at] === characters[length]) length++;
				shorter.push(length);
			}
			return { characters, shorter, matched: 0 };
		});
		this.pending = 0;
		this.ended = 0;
	}
	read(character) {
		this.pending = this.ended = 0;
		for (const stop of this.stops) {
			const { characters, shorter } = stop;
			while (stop.matched && character !== characters[stop.matched]) stop.matched = shorter[stop.matched - 1];
			if (character === characters[stop.matched]) stop.matched++;
			this.pending = Math.max(this.pending, stop.matched);
			if (stop.matched === characters.length) this.ended = Math.max(this.ended, stop.matched);
		}
	}
}

const FOLLOWED = 256;
const LEFT_OUT = 1e-6;
const SOFTMAX = { temperature: 1, top_k: 0, top_p: 1, min_p: 0 };
const masked = (vocabulary, logits, rest) =>
	logits.map((logit, token) => (vocabulary.goesOn(token, rest) ? logit : -Infinity));
function nextCharacters(engine, vocabulary, { hidden, logits, rest, partial }) {
	const found = new Map();
	const waiting = [];
	const decoder = new TokenDecoder(vocabulary);
	let [weight, left] = [1, 0];
	for (let followed = 0; ; followed++) {
		const weights = Float64Array.from(rest ? masked(vocabulary, logits, rest) : logits);
		exponentiate(weights, SOFTMAX);
		const total = weights.reduce((sum, each) => sum + each, 0);
		vocabulary.texts.forEach((text, token) => {
			const part = (weights[token] * weight) / total;
			if (!part) return;
			decoder.restart(partial);
			const brought = rest ? text.slice(rest.length) : text && decoder.feed(token);
			const path = rest ? text.length <= rest.length : text && !brought;
			if (path) {
				waiting.push({
					weight: part,
					hidden,
					token,
					rest: rest.slice(text.length),
					partial: decoder.partial,
				});
				left += part;
			} else {
				const [character = ""] = brought;
				found.set(character, (found.get(character) ?? 0) + part);
			}
		});
		if (!waiting.length || followed === FOLLOWED || left <= LEFT_OUT) break;
		let likeliest = 0;
		for (let i = 1; i < waiting.length; i++) if (waiting[i].weight > waiting[likeliest].weight) likeliest = i;
		const [path] = waiting.splice(likeliest, 1);
		({ weight, rest, partial } = path);
		left -= weight;
		hidden = path.hidden.slice();
		logits = engine.step(hidden, path.token);
	}
	return [...found].sort((a, b) => b[1] - a[1]);
}

class TextState {
	#engine;
	#artifact;
	#vocabulary;
	#sampler;
	#unknown;
	#hidden;
	#logits;
	#decoder;
	#fed = false;
	#rest = "";
	#ready = "";
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
	get options() {
		return { ...this.#sampler.options };
	}
	get seed() {
		return plain(this.#sampler.options.seed);
	}
	get drawn() {
		return this.#sampler.drawn;
	}
	feed(text) {
		const known = this.#vocabulary.knownPart(text, this.#unknown);
		if (!known) return;
		const [tokens, rest] = this.#vocabulary.encodeOpen(this.#rest + known);
		this.#read(tokens);
		this.keepBack(rest);
	}
	feedTokens(tokens) {
		for (const token of tokens) checkWhole("a token", token, 0, this.#logits.length - 1);
		if (!tokens.length) return;
		if (this.#rest) this.#read(this.#vocabulary.encode(this.#rest));
		this.#read(tokens);
		this.keepBack("");
	}
	keepBack(rest) {
		[this.#rest, this.#ready] = [rest, ""];
		this.#decoder.restart();
	}
	#read(tokens) {
		if (!tokens.length) return;
		if (!this.#fed && this.#vocabulary.end >= 0) this.#beginText();
		for (const token of tokens) this.#step(token);
		this.#sampler.see(tokens);
		this.#fed = true;
	}
	#step(token) {
		this.#logits.set(this.#engine.step(this.#hidden, token));
	}
	#begin() {
		if (this.#fed) return;
		if (this.#vocabulary.end >= 0) this.#beginText();
		else this.#read([(this.#vocabulary.tokenOf.get(this.#artifact.config.separator))]);
	}
	#beginText() {
		this.#hidden.fill(0);
		this.#step(this.#vocabulary.end);
		this.#sampler.seen?.fill(0);
		this.#fed = true;
	}
	logits() {
		this.#begin();
		return this.#rest ? masked(this.#vocabulary, this.#logits, this.#rest) : this.#logits.slice();
	}
	hidden() {
		return this.#fed ? this.#hidden.slice() : new Float32Array(this.#hidden.length);
	}
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
		const weights = Float64Array.from(this.#logits);
		exponentiate(weights, { temperature: 1, top_k: 0, top_p: 1, min_p: 0 });
		const total = weights.reduce((sum, weight) => sum + weight, 0);
		const texts = this.#vocabulary.texts;
		return new Map(
			byWeight(weights)
				.slice(0, wanted)
				.map((token) => [texts[token], weights[token] / total]),
		);
	}
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
	rest() {
		const ready = this.#ready;
		this.#ready = "";
		return ready;
	}
	fork() {
		return restoreState(this.model, this.snapshot());
	}
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
	resumeFrom({ drawn, fed, seen, rest, ready, partial }, floats) {
		const wrong = seen.find((token) => token >= this.#logits.length);
		if (wrong !== undefined) throw new ArtifactError(`the snapshot is damaged: a token is ${wrong}`);
		this.#sampler.drawn = Number(drawn);
		this.#sampler.see(seen);
		this.#fed = fed;
		this.keepBack(rest);
		this.#ready = ready;
		this.#decoder.restart(partial);
		this.#hidden.set(floats.subarray(0, this.#hidden.length));
		this.#logits.set(floats.subarray(this.#hidden.length));
		return this;
	}
}
const first = (text) => String.fromCodePoint((text.codePointAt(0)));
const plain = (value) => (value <= Number.MAX_SAFE_INTEGER ? Number(value) : value);
const ascii = (value) =>
	JSON.stringify(value).replace(
		/[\x7f-\uffff]/g,
		(unit) => `\\u${unit.charCodeAt(0).toString(16).padStart(4, "0")}`,
	);
function pythonFloat(value) {
	const [digits, exponent] = value.toExponential().split("e");
	const power = Number(exponent);
	if (power >= -4 && power < 16) return Number.isInteger(value) ? `${value}.0` : String(value);
	return `${digits}e${power < 0 ? "-" : "+"}${String(Math.abs(power)).padStart(2, "0")}`;
}
function restoreState(model, snapshot) {
	const magic = utf8.encode(LIMITS.magic);
	if (!(snapshot instanceof Uint8Array))
		throw new OptionError(`a snapshot must be a Uint8Array, got ${kindOf(snapshot)}`);
	if (magic.some((byte, place) => byte !== snapshot[place]))
		throw new ArtifactError("these bytes are not a snapshot of this version of chargen");
	const found = snapshot.indexOf(10, magic.length);
	const end = found < 0 ? snapshot.length : found;
	let header;
	try {
		const json = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(
			snapshot.subarray(magic.length, end),
		);
		header = conform(RECORDS.header, "its header", parseObject(json, "its header"));
		header.options = checkOptions({ ...header.options, seed: header.seed }, model.vocabulary);
	} catch (error) {
		throw new ArtifactError(`the snapshot is damaged: ${(error).message}`);
	}
	const { sha256, config } = model.artifact;
	if (header.model !== sha256)
		throw new ArtifactError(`the snapshot is of another model: ${header.model.slice(0, 12)}…`);
	const rest = new Uint8Array(snapshot.subarray(end + 1));
	const expected = 4 * (config.num_layers * config.hidden_size + config.tokens.length);
	if (rest.length !== expected)
		throw new ArtifactError(`the snapshot has ${rest.length} bytes of state, ${expected} are needed`);
	const floats = new Float32Array(rest.buffer);
	if (!floats.every(Number.isFinite))
		throw new ArtifactError("the snapshot is damaged: a number in it is not finite");
	const drawn = header.drawn && !config.end;
	const { ready, partial, fed, seen } = header;
	const { unit, hasPieces } = model.vocabulary;
	if ((header.rest && !hasPieces) || (partial.length && unit !== "byte"))
		throw new ArtifactError("the snapshot is damaged: it has a part of a token, and such tokens have none");
	try {
		model.vocabulary.knownPart(header.rest + ready, "error");
	} catch (error) {
		throw new ArtifactError(`the snapshot is damaged: ${(error).message}`);
	}
	if (!fed && (floats.some(Boolean) || drawn || seen.length || ready || partial.length)) {
		throw new ArtifactError("the snapshot is damaged: nothing was fed, and yet it has a state");
	}
	return new TextState(model, header.options, BigInt(header.row), header.unknown).resumeFrom(header, floats);
}

const PIECE = 64;
const BREATH = 12;
class TextStream {
	#ended = null;
	#closed = false;
	#signal;
	#pieces;
	constructor(state, start, length, signal) {
		this.state = state;
		this.#signal = signal;
		const { stop } = state.options;
		const characters = this.#write(start, length);
		this.#pieces = stop.length ? this.#untilStop(characters, stop) : characters;
	}
	get seed() {
		return this.state.seed;
	}
	get ended() {
		return this.#ended;
	}
	close() {
		this.#closed = true;
		this.#ended ??= "cancelled";
	}
	*[Symbol.iterator]() {
		for (const piece of this.#pieces) if (piece) yield piece;
	}
	async *[Symbol.asyncIterator]() {
		let begun = performance.now();
		try {
			for (const piece of this.#pieces) {
				if (piece) yield piece;
				if (performance.now() - begun < BREATH) continue;
				await breathe();
				begun = performance.now();
			}
		} finally {
			this.#ended ??= "cancelled";
		}
	}
	*#write([start, rest], length) {
		const over = () => this.#closed || this.#signal?.aborted;
		for (let begin = 0; begin < start.length; begin += PIECE) {
			if (over()) return void (this.#ended ??= "cancelled");
			this.state.feedTokens(start.slice(begin, begin + PIECE));
			yield null;
		}
		if (rest) this.state.keepBack(rest);
		for (let made = 0; made < length; made++) {
			if (over()) return void (this.#ended ??= "cancelled");
			const character = this.state.draw();
			if (!character) return void (this.#ended ??= "end");
			yield character;
		}
		this.#ended ??= "length";
	}
	*#untilStop(pieces, stops) {
		const finder = new StopFinder(stops);
		const held = [];
		for (const piece of pieces) {
			if (!piece) {
				yield null;
				continue;
			}
			held.push(piece);
			finder.read(piece);
			if (finder.ended) {
				yield* held.slice(0, held.length - finder.ended);
				this.#ended = "stop";
				return;
			}
			yield* held.splice(0, held.length - finder.pending);
		}
		yield* held;
	}
}
function breathe() {
	return new Promise((resolve) => {
		const { port1, port2 } = new MessageChannel();
		port1.onmessage = () => {
			port1.close();
			resolve();
		};
		port2.postMessage(0);
	});
}

class Score {
	constructor(scores, unknown, sizes, characters) {
		this.log_probabilities = Float64Array.from(scores);
		this.unknown = unknown;
		this.sizes = sizes;
		this.characters = characters;
		this.total = scores.reduce((sum, score) => sum + score, 0);
	}
	get character_log_probabilities() {
		const nats = [];
		this.sizes.forEach((size, token) => {
			const own = this.log_probabilities[token];
			for (let i = 0; i < size; i++) nats.push(own / size);
			if (!size && nats.length) nats[nats.length - 1] += own;
		});
		return nats;
	}
	get nats_per_char() {
		return -this.total / this.characters;
	}
	get bits_per_char() {
		return this.nats_per_char / Math.LN2;
	}
	get perplexity() {
		return Math.exp(this.nats_per_char);
	}
}
class Model {
	constructor(artifact, weights) {
		this.artifact = artifact;
		this.vocabulary = new Vocabulary(artifact.config);
		this.engine = new Engine(artifact.config, weights);
	}
	get config() {
		return this.artifact.config;
	}
	state(start = "", options = {}) {
		const state = this.#newState(options);
		state.feed(start);
		return state;
	}
	#newState({ row = 0, unknown, length: _, signal: __, ...sampling }) {
		const wrong = Object.keys(sampling).find((name) => name !== "stop" && !Object.hasOwn(OPTIONS, name));
		if (wrong !== undefined) throw new OptionError(`no such option: ${wrong}`);
		const options = checkOptions(sampling, this.vocabulary, this.config.sampling);
		options.seed ??= BigInt(crypto.getRandomValues(new Uint32Array(1))[0]);
		return new TextState(this, options, BigInt(checkWhole("row", row, 0, LIMITS.row)), checkPolicy(unknown));
	}
	stream(start = "", options = {}) {
		const begun = this.vocabulary.encodeOpen(start, options.unknown);
		return new TextStream(this.#newState(options), begun, checkLength(options.length), options.signal);
	}
	generate(start = "", options = {}) {
		return [...this.stream(start, { length: DEFAULT_LENGTH, ...options })].join("");
	}
	resume(state, { length, signal } = {}) {
		return new TextStream(state, [[], ""], checkLength(length), signal);
	}
	restore(snapshot) {
		return restoreState(this, snapshot);
	}
	nextProbabilities(text = "", { top, unknown } = {}) {
		return this.state(text, { unknown }).probabilities(top);
	}
	score(text, { window, unknown } = {}) {
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
		const { unit } = this.vocabulary;
		const size =
			window && unit !== "char"
				? Math.max(1, roundHalfEven((window * (tokens.length + 1)) / characters))
				: (window ?? Infinity);
		return this.#score(first, tokens, unknown, size, characters - Math.max(1, this.#sizes([first], -1)[0]));
	}
	scoreAlone(text, { end = false, unknown } = {}) {
		const { config, vocabulary } = this;
		const ending = vocabulary.end >= 0 ? vocabulary.end : vocabulary.tokenOf.get("\n");
		const ends = end && ending !== undefined;
		const joined = ends && vocabulary.hasPieces && vocabulary.end < 0;
		const tokens = this.#readable(joined ? `${text}\n` : text, unknown);
		if (ends && !joined) tokens.push(ending);
		if (!tokens.length) throw new OptionError("the text is empty; a score needs at least 1 character");
		const characters = countCharacters(text) + Number(ends);
		const first = config.tokens.indexOf(config.separator);
		return this.#score(first, tokens, unknown, Infinity, characters, ends && !joined ? ending : -1);
	}
	#readable(text, unknown) {
		const policy = checkPolicy(unknown);
		return this.vocabulary.lookUp(policy === "error" ? this.vocabulary.knownPart(text, policy) : text);
	}
	#sizes(tokens, ending) {
		const { sizes } = this.vocabulary;
		return tokens.map((token) => (token < 0 || token === ending ? 1 : sizes[token]));
	}
	#score(first, tokens, unknown, window, characters, ending = -1) {
		const { config, vocabulary, engine } = this;
		const standIn = (unknown ?? config.unknown) === "replace" ? vocabulary.replacement : -1;
		const instead = standIn < 0 ? config.tokens.indexOf(config.separator) : standIn;
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
const roundHalfEven = (value) => (value % 2 === 0.5 ? Math.floor(value) : Math.round(value));
const checkLength = (length) =>
	length === undefined || length === null ? Infinity : checkWhole("length", length, 0, LIMITS.length);
function logProbability(logits, token) {
	let [least, most, total] = [Infinity, -Infinity, 0];
	for (const logit of logits) [least, most] = [Math.min(least, logit), Math.max(most, logit)];
	for (const logit of logits) total += Math.exp(logit - most);
	return (token < 0 ? least : logits[token]) - most - Math.log(total);
}
async function load(source) {
	if (typeof source === "string" || source instanceof URL) return load(await fetchBytes(source));
	if (!(source instanceof Uint8Array) && !(source instanceof ArrayBuffer)) {
		throw new OptionError(`a model is a Uint8Array, an ArrayBuffer or a URL, got ${kindOf(source)}`);
	}
	const bytes = new Uint8Array(source instanceof Uint8Array ? source : source.slice(0));
	const { artifact, weights } = await parseArtifact(bytes);
	return new Model(artifact, weights);
}
async function fetchBytes(source) {
	const url = String(source);
	try {
		if (url.startsWith("file:") && "process" in globalThis && !("Deno" in globalThis)) {
			const { readFile } = await import("node:fs/promises");
			return new Uint8Array(await readFile(new URL(url)));
		}
		const response = await fetch(url);
		if (!response.ok) throw new Error(`${response.status} ${response.statusText}`);
		return new Uint8Array(await response.arrayBuffer());
	} catch (error) {
		throw new ArtifactError(`cannot read ${shown(url)}: ${(error).message}`);
	}
}
export { ArtifactError, ChargenError, OptionError, UnknownCharacterError, load, Model, Score, TextState, TextStream };
