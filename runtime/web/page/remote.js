// The model of a page that a server shows: the calls of page/worker.js, answered by its routes.

export {};

/** @typedef {import("./worker.js").Place} Place */
/**
 * @typedef {object} Logprobs
 * @property {string[]} tokens
 * @property {(number | null)[]} token_logprobs in nats
 * @property {({[token: string]: number} | null)[]} top_logprobs
 */

const SHOWN = 10; // likeliest characters that are told of each place
// a text is shown no faster than an eye can follow it: so many characters in so many milliseconds
const [TOGETHER, PACE] = [60, 40];
const [MOST_TEXTS, USUAL] = [64, 8]; // texts of one request, and characters that a text has at least

let [base, model] = ["", ""];
/** @type {any} */
let config = null;
/** @type {AbortController | null} */
let writing = null;

/**
 * The answer of a route.
 * @param {string} route
 * @param {{[field: string]: any}} [fields] of the body, for POST
 * @param {AbortSignal} [signal]
 */
async function ask(route, fields, signal) {
  /** @type {RequestInit} */
  const request = { signal };
  if (fields) {
    const { seed, ...rest } = /** @type {{[field: string]: any}} */ ({ ...fields, model });
    const body = JSON.stringify(rest); // in which a seed of 64 bits has no place
    request.method = "POST";
    request.headers = { "Content-Type": "application/json" };
    request.body = seed === undefined ? body : `${body.slice(0, -1)},"seed":${seed}}`;
  }
  const response = await fetch(new URL(route, base), request).catch((error) => {
    throw signal?.aborted ? error : new Error("the server does not answer");
  });
  if (response.ok) return response;
  const told = await response.json().catch(() => null);
  throw new Error(told?.error?.message ?? `the server answers ${response.status}`);
}

/** The events of a stream. @param {Response} response */
async function* events(response) {
  const reader = /** @type {ReadableStream} */ (response.body).pipeThrough(new TextDecoderStream()).getReader();
  for (let held = ""; ; ) {
    const { done, value } = await reader.read();
    if (done) throw new Error("the server has cut the text off");
    const parts = (held + value).split("\n\n");
    held = /** @type {string} */ (parts.pop());
    for (const part of parts) {
      if (part === "data: [DONE]") return;
      const event = JSON.parse(part.slice("data: ".length));
      if (event.error) throw new Error(event.error.message);
      yield event;
    }
  }
}

/** The likeliest characters with their probabilities. @param {{[token: string]: number} | null} top */
const shares = (top) =>
  Object.entries(top ?? {})
    .sort((a, b) => b[1] - a[1])
    .slice(0, SHOWN)
    .map(([token, nats]) => /** @type {[string, number]} */ ([token, Math.exp(nats)]));

const bitsOf = (/** @type {number | null | undefined} */ nats) => (nats == null ? null : -nats / Math.LN2);

/** @type {(logprobs: Logprobs) => Place[]} */
const placesOf = ({ tokens, token_logprobs, top_logprobs }) =>
  tokens.map((character, index) => ({
    character,
    bits: bitsOf(token_logprobs[index]),
    top: shares(top_logprobs[index]),
  }));

/** The places of what the model knows of a text, and what may follow it. @param {string} text */
async function look(text) {
  // one character more has the likeliest ones told, among which it is; the end would tell none
  const logit_bias = config.end ? { [config.tokens.length - 1]: -100 } : {};
  const asked = { prompt: text, echo: true, logprobs: SHOWN, max_tokens: 1, unknown: "skip", logit_bias };
  const { choices } = await (await ask("v1/completions", asked)).json();
  const places = placesOf(choices[0].logprobs);
  const next = /** @type {Place} */ (places.pop()).top;
  return { places, next };
}

/** The names of the models. @param {string} url of the page */
async function models(url) {
  base = url;
  const { data } = await (await ask("v1/models")).json();
  return data.map((/** @type {{id: string}} */ { id }) => id);
}

/** What there is to know of a model. @param {string} name */
async function open(name) {
  writing?.abort();
  const found = await (await ask(`v1/models/${encodeURIComponent(name)}/card`)).json();
  [model, config] = [name, found.config];
  return { ...found, size: found.bytes, properties: found, difference: null };
}

/**
 * The pieces of texts that are streamed side by side, one text after the other.
 * @param {Response} response
 * @param {number} n how many there are
 */
async function* inOrder(response, n) {
  const held = Array.from({ length: n }, () => ({ places: /** @type {Place[]} */ ([]), reason: "" }));
  let current = 0;
  for await (const { seed, choices } of events(response)) {
    const [{ index, logprobs, finish_reason }] = choices;
    held[index].places.push(...placesOf(logprobs));
    held[index].reason = finish_reason ?? "";
    for (let goesOn = true; goesOn && current < n; ) {
      const { places, reason } = held[current];
      yield { seed, number: current, places: places.splice(0), reason };
      goesOn = reason !== "";
      if (goesOn) current++;
    }
  }
}

/**
 * Write a text, or several of documents; the places are sent as they come, those of the start first.
 * @param {{start: string, length: number, seed?: bigint}} asked and sampling options
 */
async function write({ start, length, ...options }) {
  writing?.abort();
  const mine = (writing = new AbortController());
  const n = config.end ? Math.min(MOST_TEXTS, Math.ceil(length / USUAL)) : 1;
  const asked = { ...options, prompt: start, max_tokens: length, n, unknown: "error" };
  const streamed = { stream: true, echo: true, logprobs: SHOWN };
  const given = Array.from(start).length;
  const begun = performance.now();
  let [made, ends, waited, number] = [0, 0, 0, -1];
  let [text, seed, ended] = ["", "", "cancelled"];
  /** @type {Place} */
  let end = { character: "", bits: null, top: [] };
  const show = async (/** @type {Place[]} */ places) => {
    for (let at = 0; at < places.length && !mine.signal.aborted; at += TOGETHER) {
      postMessage({ kind: "places", places: places.slice(at, at + TOGETHER) });
      await new Promise((resolve) => setTimeout(resolve, PACE));
      waited += PACE;
    }
  };
  try {
    const response = await ask("v1/completions", { ...asked, ...streamed }, mine.signal);
    for await (const piece of inOrder(response, n)) {
      if (piece.number > number) {
        const echo = piece.places.splice(0, given); // it comes in one piece
        if (number < 0) postMessage({ kind: "places", places: echo, begin: true });
        else await show([end, ...echo]);
        [number, text, seed] = [piece.number, start, String(options.seed ?? piece.seed)];
      }
      if (piece.places.at(-1)?.character === "") end = /** @type {Place} */ (piece.places.pop());
      const own = piece.places.slice(0, length - made);
      await show(own);
      made += own.length;
      text += own.map(({ character }) => character).join("");
      ended = piece.reason === "stop" && config.end ? "end" : piece.reason || "length";
      if (ended === "end") ends++; // they count too, so that many empty texts have an end
      if (mine.signal.aborted || made + ends >= length) break;
    }
  } catch (error) {
    if (!mine.signal.aborted) throw error;
  }
  if (mine.signal.aborted) ended = "cancelled";
  mine.abort(); // texts that are not shown need not be written
  if (writing === mine) writing = null;
  const milliseconds = performance.now() - begun - waited;
  return { next: (await look(ended === "end" ? "" : text)).next, made, ended, seed, milliseconds };
}

/** Score a text. @param {{text: string}} asked */
async function score({ text }) {
  const asked = { text, per_character: true, unknown: "skip" };
  const { scores } = await (await ask("score", asked)).json();
  const [{ log_probabilities, bits_per_char, perplexity, characters, unknown }] = scores;
  const { places: read, next } = await look(text);
  const known = new Set(config.tokens);
  const found = read.values();
  /** @type {Place[]} */
  const places = Array.from(text, (character) =>
    known.has(character) ? /** @type {Place} */ (found.next().value) : { character, bits: null, top: [] },
  );
  if (config.end) places.push({ character: "", bits: null, top: next });
  const scored = config.end ? places : places.slice(1);
  scored.forEach((place, index) => (place.bits = bitsOf(log_probabilities[index])));
  return { places, next: config.end ? [] : next, bits_per_char, perplexity, characters, unknown };
}

/** @type {{[call: string]: (given: any) => any}} */
const CALLS = { models, open, write, score, stop: () => writing?.abort() };

onmessage = async ({ data: { id, call, given } }) => {
  try {
    postMessage({ kind: "answer", id, answer: await CALLS[call](given) });
  } catch (error) {
    postMessage({ kind: "answer", id, error: /** @type {Error} */ (error).message });
  }
};
