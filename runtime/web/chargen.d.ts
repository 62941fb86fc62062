/** Base of every error that chargen throws on purpose; its message is one line for a person. */
declare class ChargenError extends Error {
    get name(): string;
}
/** The model file is damaged, foreign, or of a format that this version cannot read. */
declare class ArtifactError extends ChargenError {
}
/** An option or an argument is out of its range; the message names value, range and cure. */
declare class OptionError extends ChargenError {
}
/** A text has a character that the model does not know. */
declare class UnknownCharacterError extends ChargenError {
    character: string;
    position: number;
    /**
     * @param {string} character one code point
     * @param {number} position its index in the text, counted in code points from 0
     * @param {number} known how many characters the model knows
     */
    constructor(character: string, position: number, known: number);
}
export type Json = {
    [key: string]: any;
};
export type Sizes = {
    vocab_size: number;
    embedding_dim: number;
    hidden_size: number;
    num_layers: number;
};
export type Matrix = {
    at: number;
    /**
     * of sixteen rows
     */
    blocks: number;
    /**
     * of columns
     */
    pairs: number;
    /**
     * of each row, where the numbers are integers, or 0
     */
    scale: number;
    /**
     * of each row
     */
    bias: number;
};
export type Source = {
    rows: number;
    columns: number;
    data: ArrayLike<number>;
    /**
     * whether `data` goes column by column
     */
    transposed: boolean;
    /**
     * of each row, for integers
     */
    scale?: ArrayLike<number>;
    bias: ArrayLike<number>;
};
export type Sources = {
    input: Source[];
    recurrent: Source[];
    output: Source;
};
export type Weights = {
    [name: string]: Float32Array | Int8Array;
};
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
declare class Engine {
    hidden: number;
    layers: number;
    vocab: number;
    width: number;
    integers: boolean;
    embedding: Float32Array<ArrayBufferLike> | Int8Array<ArrayBufferLike>;
    first: ((token: number) => Float32Array) | null;
    kernel: {
        [name: string]: Function;
    };
    passGates: Function;
    matrices: {
        input: {
            source: Source;
            at: number;
            blocks: number;
            pairs: number;
            scale: number;
            bias: number;
        }[];
        recurrent: {
            source: Source;
            at: number;
            blocks: number;
            pairs: number;
            scale: number;
            bias: number;
        }[];
        output: {
            source: Source;
            at: number;
            blocks: number;
            pairs: number;
            scale: number;
            bias: number;
        };
    };
    vectors: {
        before: {
            at: number;
            numbers: Float32Array<ArrayBuffer>;
        };
        fed: {
            at: number;
            numbers: Float32Array<ArrayBuffer>;
        } | {
            at: number;
            numbers: Int16Array<ArrayBuffer>;
        };
        after: {
            at: number;
            numbers: Float32Array<ArrayBuffer>;
        };
        above: {
            at: number;
            numbers: Float32Array<ArrayBuffer>;
        } | {
            at: number;
            numbers: Int16Array<ArrayBuffer>;
        };
        embedded: {
            at: number;
            numbers: Float32Array<ArrayBuffer>;
        };
        inputs: {
            at: number;
            numbers: Float32Array<ArrayBuffer>;
        };
        recurrent: {
            at: number;
            numbers: Float32Array<ArrayBuffer>;
        };
        scores: {
            at: number;
            numbers: Float32Array<ArrayBuffer>;
        };
    };
    /** @type {(Float32Array | undefined)[]} the first layer's input products, by token */
    rows: (Float32Array | undefined)[];
    kept: number;
    /**
     * @param {Json} config
     * @param {Weights} weights
     */
    constructor(config: Json, weights: Weights);
    /**
     * Feed one token. The state is changed, the logits that are returned change with the next step.
     * @param {Float32Array} state [num_layers, hidden_size]
     * @param {number} token
     */
    step(state: Float32Array, token: number): Float32Array<ArrayBuffer>;
    /** @type {(state: Float32Array, target: Float32Array | Int16Array) => void} */
    feed(state: Float32Array<ArrayBufferLike>, target: Float32Array<ArrayBufferLike> | Int16Array<ArrayBufferLike>): void;
    /** @type {(matrix: Matrix, x: number, out: number) => void} */
    multiply({ at, blocks, pairs, scale, bias }: Matrix, x: number, out: number): void;
    /**
     * The first layer's input product of a token, [3 hidden_size]; made when it is first needed.
     * @param {number} token
     */
    rowOf(token: number): Float32Array<ArrayBufferLike>;
    /** @param {number} token */
    multiplyEmbedding(token: number): Float32Array<ArrayBuffer>;
}
export type Hole = {
    name: string;
    kind: number;
    count: number;
};
export type Part = Uint8Array | Hole;
export type SamplingOptions = {
    /**
     * divides the logits; 0 is greedy
     */
    temperature?: number;
    /**
     * keep the k most likely tokens, ties with the k-th included; 0 is off
     */
    top_k?: number;
    /**
     * keep the most likely tokens until their mass reaches p; 1 is off
     */
    top_p?: number;
    /**
     * drop tokens less likely than min_p times the likeliest; 0 is off
     */
    min_p?: number;
    /**
     * divides positive and multiplies negative logits of the
     * tokens that the prompt or the output has; 1 is off
     */
    repetition_penalty?: number;
    /**
     * strings that end the text; they are not part of it
     */
    stop?: string | string[];
    /**
     * of the draws; by default a fresh one
     */
    seed?: number | bigint;
};
export type TextOptions = {
    /**
     * number of the row in the seed's family of texts
     */
    row?: number | bigint;
    /**
     * policy for characters of the start that the
     * model does not know; by default the model's own
     */
    unknown?: "error" | "skip" | "replace";
};
export type StreamOptions = {
    /**
     * new characters at most
     */
    length?: number;
    /**
     * ends the text
     */
    signal?: AbortSignal;
};
export type WritingOptions = SamplingOptions & TextOptions & StreamOptions;
/** The texts that tokens stand for. */
declare class Vocabulary {
    #private;
    unit: any;
    /** @type {string[]} the end token's is empty */
    texts: string[];
    /** @type {number} the token that ends a text, -1 where texts have no end */
    end: number;
    unknown: any;
    /** @type {Map<string, number>} */
    tokenOf: Map<string, number>;
    replacement: number;
    /** Whether a token may be several characters, so that the last one of a prompt may grow. */
    hasPieces: boolean;
    /** @param {Json} config */
    constructor({ unit, tokens, merges, end, unknown, replacement }: Json);
    /** How many characters each token adds to a text; of bytes, those do that begin a character. */
    get sizes(): number[];
    /**
     * Tokens of a text; -1 for a character that is not known.
     * @param {string} text
     * @returns {number[]}
     */
    lookUp(text: string): number[];
    /**
     * A text with what a policy makes of the characters that are not known.
     * @param {string} text
     * @param {string | null | undefined} unknown
     */
    knownPart(text: string, unknown: string | null | undefined): string;
    /**
     * Tokens of a text, where a policy decides about what is not known.
     * @param {string} text
     * @param {string | null | undefined} [unknown]
     */
    encode(text: string, unknown?: string | null | undefined): number[];
    /**
     * Tokens of a text without its last run, and that run: what follows is to begin with it, as the
     * text may go on inside its last word. Of characters and bytes it is empty.
     * @param {string} text
     * @param {string | null | undefined} [unknown]
     * @returns {[number[], string]}
     */
    encodeOpen(text: string, unknown?: string | null | undefined): [number[], string];
    /**
     * Whether a token goes on as a text does: reaches beyond its end, or is a beginning of it.
     * @type {(token: number, text: string) => boolean}
     */
    goesOn(token: number, text: string): boolean;
    /** @param {string[]} stops */
    checkWritable(stops: string[]): void;
}
export type Artifact = {
    /**
     * the seal
     */
    sha256: string;
    /**
     * what the model is
     */
    config: Json;
    /**
     * how it came to be
     */
    training: Json;
    /**
     * what was compared when it was exported
     */
    parity: Json;
    /**
     * the flat keys that model viewers show
     */
    properties: {
        [key: string]: string;
    };
};
export type Path = {
    weight: number;
    hidden: Float32Array;
    token: number;
    rest: string;
    partial: number[];
};
/** A text in the making: feed it, look at what may come, draw, fork, save and restore. */
declare class TextState {
    #private;
    model: Model;
    /**
     * Made by `Model.state`.
     * @param {Model} model
     * @param {Json} options checked, with a seed
     * @param {bigint} row
     * @param {string | null} unknown
     */
    constructor(model: Model, options: Json, row: bigint, unknown: string | null);
    /** The sampling options. @returns {Json} */
    get options(): Json;
    /** The seed of the draws: the one given, or the fresh one that was taken instead. */
    get seed(): number | bigint;
    /** How many tokens were drawn so far. */
    get drawn(): number;
    /**
     * Read a text as if it had been written: all of it, or nothing where this throws. Of the units word
     * and bpe its last run is kept back, since it may go on otherwise.
     * @param {string} text
     */
    feed(text: string): void;
    /** @param {number[]} tokens of the model's */
    feedTokens(tokens: number[]): void;
    /**
     * Have what follows begin with a run of characters that the model knows.
     * @param {string} rest empty, unless the model's unit is word or bpe
     */
    keepBack(rest: string): void;
    /** Scores of the next token before temperature, a copy, [vocab_size]. */
    logits(): Float32Array<ArrayBufferLike>;
    /** The hidden state, a copy, [num_layers, hidden_size]. */
    hidden(): Float32Array<ArrayBuffer>;
    /**
     * The model's own probabilities of the next character, likeliest first: no temperature, no
     * filters. The empty text is the end of the text, in models of documents.
     * @param {number} [top] how many; by default all
     * @returns {Map<string, number>}
     */
    probabilities(top?: number): Map<string, number>;
    /**
     * Draw the next character, feed it, and return it. The empty text is the end of the text, of a
     * model whose texts have one: the state then stands before the next text, and its draws go on.
     */
    draw(): string;
    /** The characters that were drawn with others and have not come yet; they come no more. */
    rest(): string;
    /** An independent copy that goes on with the same draws; it shares the model. */
    fork(): TextState;
    /**
     * All of the state as bytes, for `Model.restore` in this or another program, in JavaScript or Python.
     * @returns {Uint8Array}
     */
    snapshot(): Uint8Array;
    /** @type {(header: Json, floats: Float32Array) => this} */
    resumeFrom({ drawn, fed, seen, rest, ready, partial }: Json, floats: Float32Array<ArrayBufferLike>): this;
}
/** The characters of one text as they are written; `for await` gives others their turn meanwhile. */
declare class TextStream {
    #private;
    state: TextState;
    /**
     * Made by `Model.stream` and `Model.resume`.
     * @param {TextState} state
     * @param {[number[], string]} start tokens to be fed first, and what is then kept back
     * @param {number | bigint} length
     * @param {AbortSignal | undefined} signal
     */
    constructor(state: TextState, start: [number[], string], length: number | bigint, signal: AbortSignal | undefined);
    /** The seed of its draws; with the same seed the text can be made again. */
    get seed(): number | bigint;
    /**
     * Why the text ended: at its `end`, a `stop` string, its `length`, or `cancelled` by `close` or the
     * signal. Null while it runs.
     */
    get ended(): "cancelled" | "end" | "length" | "stop" | null;
    /** End the stream: no character comes any more. */
    close(): void;
    /** All characters, without giving others their turn. */
    [Symbol.iterator](): Generator<string, void, unknown>;
    [Symbol.asyncIterator](): AsyncGenerator<string, void, unknown>;
}
/** Log probability of a text. */
declare class Score {
    /** Nats, one for each token that was scored, which of the unit char is a character. */
    log_probabilities: Float64Array<ArrayBuffer>;
    /** How many of them the model does not know: each counts as likely as the least likely one. */
    unknown: number;
    /** How many characters each token is; of bytes, those are one that begin a character. */
    sizes: number[];
    /** How many were scored. */
    characters: number;
    /** Log probability of all of them together, nats (0 or less). */
    total: number;
    /**
     * @param {number[]} scores nats, one for each token that was scored
     * @param {number} unknown how many of them the model does not know
     * @param {number[]} sizes how many characters each is
     * @param {number} characters that were scored
     */
    constructor(scores: number[], unknown: number, sizes: number[], characters: number);
    /**
     * Nats of each character, to show them: those of a token are spread over its characters, those of
     * bytes that go on with a character are added to it.
     */
    get character_log_probabilities(): number[];
    /** Mean negative log probability, nats: the loss of training. */
    get nats_per_char(): number;
    /** The same in bits. */
    get bits_per_char(): number;
    /** Exp of `nats_per_char`: between so many characters the model hesitates on average. */
    get perplexity(): number;
}
/** A loaded model. No call changes it. */
declare class Model {
    #private;
    /** What the file says: seal, config, training, parity, properties. */
    artifact: Artifact;
    vocabulary: Vocabulary;
    engine: Engine;
    /**
     * Made by `load`.
     * @param {Artifact} artifact
     * @param {{[name: string]: Float32Array | Int8Array}} weights
     */
    constructor(artifact: Artifact, weights: {
        [name: string]: Float32Array | Int8Array;
    });
    /** What the model is. */
    get config(): Json;
    /**
     * The state of a text that begins with `start`, to feed, draw, fork and save.
     * @param {string} [start]
     * @param {SamplingOptions & TextOptions} [options]
     */
    state(start?: string, options?: SamplingOptions & TextOptions): TextState;
    /**
     * Write on from `start`, character by character: `for await (const character of stream)`.
     * @param {string} [start] the text to go on from, not part of the result; empty begins a text
     * @param {WritingOptions} [options] without a length the text goes on until its end, a stop string,
     *   `close` or the signal
     */
    stream(start?: string, options?: WritingOptions): TextStream;
    /**
     * The text that `stream` writes, whole, before this returns.
     * @param {string} [start]
     * @param {WritingOptions} [options] 200 characters, where there is no length
     */
    generate(start?: string, options?: WritingOptions): string;
    /**
     * Write on from where `state` stands, with its options; see `stream`.
     * @param {TextState} state
     * @param {StreamOptions} [options]
     */
    resume(state: TextState, { length, signal, ...others }?: StreamOptions): TextStream;
    /**
     * The state that `TextState.snapshot` saved, in this or another program.
     * @param {Uint8Array} snapshot
     */
    restore(snapshot: Uint8Array): TextState;
    /**
     * Probabilities of the character after `text`, likeliest first; `top` of them or all.
     * @param {string} [text]
     * @param {{top?: number, unknown?: "error" | "skip" | "replace"}} [options]
     */
    nextProbabilities(text?: string, { top, unknown, ...others }?: {
        top?: number;
        unknown?: "error" | "skip" | "replace";
    }): Map<string, number>;
    /**
     * How likely the model finds a text: every character but the first, given all before it; of a model
     * of documents each character, and the end. One that the model does not know counts as likely as
     * the one that it finds least likely there, and is then left out, or read as the replacement.
     * @param {string} text
     * @param {{window?: number, unknown?: "error" | "skip" | "replace"}} [options] a window begins from a
     *   zero state again after each so many characters
     */
    score(text: string, { window, unknown, ...others }?: {
        window?: number;
        unknown?: "error" | "skip" | "replace";
    }): Score;
    /**
     * The score of a text of its own: its first character counts too, after the separator.
     * @param {string} text
     * @param {{end?: boolean, unknown?: "error" | "skip" | "replace"}} [options] `end` scores the end
     *   too: the end token of a model of documents, else the line end, if the model knows it
     */
    scoreAlone(text: string, { end, unknown, ...others }?: {
        end?: boolean;
        unknown?: "error" | "skip" | "replace";
    }): Score;
}
/**
 * Read, check and open a model file.
 * @param {Uint8Array | ArrayBuffer | URL | string} source its bytes, or where it is
 * @returns {Promise<Model>}
 */
declare function load(source: Uint8Array | ArrayBuffer | URL | string): Promise<Model>;
export { ArtifactError, ChargenError, OptionError, UnknownCharacterError, load, Model, Score, TextState, TextStream };
