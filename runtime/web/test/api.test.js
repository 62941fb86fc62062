// What chargen.js promises beyond the vectors: refusals, streams, states, and places without crypto.subtle.

import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { test } from "node:test";

import * as chargen from "../chargen.js";
import { sha256Here } from "../src/sha256.js";

const DEMO = new URL("../../chargen_ort/demo.onnx", import.meta.url);
const model = await chargen.load(DEMO);
const bytes = new Uint8Array(readFileSync(DEMO));

test("a model is its bytes, an ArrayBuffer, a URL, or the text of one", async () => {
  for (const source of [bytes, bytes.buffer, readFileSync(DEMO), String(DEMO)]) {
    assert.equal((await chargen.load(source)).artifact.sha256, model.artifact.sha256);
  }
  await assert.rejects(chargen.load(null), chargen.OptionError);
  await assert.rejects(chargen.load(new URL("none.onnx", DEMO)), /cannot read .*none\.onnx/);
});

test("what is changed after a load changes nothing", async () => {
  const mine = bytes.slice();
  const loaded = await chargen.load(mine);
  mine.fill(0);
  assert.equal(
    loaded.generate("hell", { length: 40, seed: 7 }),
    model.generate("hell", { length: 40, seed: 7 }),
  );
});

test("any flipped bit is refused", async () => {
  for (let bit = 1; bit < 8 * bytes.length; bit += 8191) {
    const flipped = bytes.slice();
    flipped[bit >> 3] ^= 1 << (bit & 7);
    await assert.rejects(chargen.load(flipped), chargen.ArtifactError);
  }
});

test("SHA-256 is the same without help", () => {
  for (const size of [0, 1, 54, 55, 56, 63, 64, 65, 119, 120, 1000]) {
    const data = Uint8Array.from({ length: size }, (_, place) => place * 7);
    assert.equal(
      Buffer.from(sha256Here(data)).toString("hex"),
      createHash("sha256").update(data).digest("hex"),
    );
  }
});

test("the seal is checked where crypto.subtle is missing", async () => {
  Object.defineProperty(crypto, "subtle", { value: undefined, configurable: true });
  try {
    assert.equal((await chargen.load(bytes)).artifact.sha256, model.artifact.sha256);
    await assert.rejects(chargen.load(bytes.with(50_000, 1)), /the seal does not match/);
  } finally {
    delete crypto.subtle;
  }
});

const WRONG = [
  [{ temperature: -1 }, "temperature is -1; give 0 (greedy), or 1e-06 to 1e+06"],
  [{ temperature: 1e-7 }, "temperature is 1e-7; give 0 (greedy), or 1e-06 to 1e+06"],
  [{ temperature: NaN }, "temperature is NaN; give 0 (greedy), or 1e-06 to 1e+06"],
  [{ temperature: "hot" }, "temperature must be a number, got string"],
  [{ temperature: true }, "temperature must be a number, got boolean"],
  [{ top_k: 1.5 }, "top_k is 1.5; give 0 (off) to 2**63 - 1"],
  [{ top_p: 0 }, "top_p is 0; give a value above 0, up to 1 (off)"],
  [{ min_p: 1.1 }, "min_p is 1.1; give 0 (off) to 1"],
  [{ repetition_penalty: 0 }, "repetition_penalty is 0; give a value above 0, up to 100 (1 is off)"],
  [{ seed: -1 }, "seed is -1; give 0 to 2**64 - 1"],
  [{ seed: 2n ** 64n }, "seed is 18446744073709551616; give 0 to 2**64 - 1"],
  [{ row: -1 }, "row is -1; give 0 to 18446744073709551615"],
  [{ length: -1 }, "length is -1; give 0 to 1099511627776"],
  [{ length: 1.5 }, "length must be a whole number, got 1.5"],
  [{ stop: [""] }, 'stop has ""; give non-empty strings'],
  [{ stop: "h".repeat(257) }, "a stop string has 257 characters; give at most 256"],
  [{ stop: Array(17).fill("h") }, "stop has 17 strings; give at most 16"],
  [{ stop: "X" }, /^stop has the character "X" \(U\+0058\), which the model does not know/],
  [{ unknown: "guess" }, 'unknown is "guess"; choose one of error, skip, replace'],
  [{ topK: 3 }, "no such option: topK"],
];
for (const [options, message] of WRONG) {
  test(`refused: ${JSON.stringify(options, (_, value) => (typeof value === "bigint" ? String(value) : value)).slice(0, 60)}`, () => {
    assert.throws(() => model.generate("hell", options), { name: "OptionError", message });
  });
}

test("a call refuses an option that it has no use for", () => {
  const refused = { name: "OptionError", message: "no such option here: temperature; leave it out" };
  const given = { temperature: 0.5 };
  assert.throws(() => model.score("hello", given), refused);
  assert.throws(() => model.scoreAlone("hello", given), refused);
  assert.throws(() => model.nextProbabilities("hello", given), refused);
  assert.throws(() => model.resume(model.state("hello"), given), refused);
});

test("a character that the model does not know has a name and a place, in code points", () => {
  assert.throws(() => model.generate("h😀X"), {
    name: "UnknownCharacterError",
    character: "😀",
    position: 1,
  });
  assert.equal(
    model.generate("hel😀l", { unknown: "skip", length: 5, seed: 1 }),
    model.generate("hell", { length: 5, seed: 1 }),
  );
});

test("a stream gives others their turn, ends when it is told to, and says why it ended", async () => {
  const controller = new AbortController();
  setTimeout(() => controller.abort(), 30);
  const stream = model.stream("hell", { signal: controller.signal, seed: 7 });
  let written = "";
  for await (const character of stream) written += character;
  assert.equal(stream.ended, "cancelled");
  assert.equal(model.generate("hell", { length: written.length, seed: 7 }), written);

  const closed = model.stream("hell", { seed: 7 });
  for await (const _ of closed) closed.close();
  assert.equal(closed.ended, "cancelled");
  const left = model.stream("hell", { seed: 7 });
  for await (const _ of left) break;
  assert.equal(left.ended, "cancelled");
  const whole = model.stream("hell", { seed: 7, length: 3 });
  assert.equal(whole.ended, null);
  assert.equal([...whole].length, 3);
  assert.equal(whole.ended, "length");
});

test("a seed that was not given can be asked for", () => {
  const stream = model.stream("", { length: 60, temperature: 2 });
  const written = [...stream].join("");
  assert.equal(model.generate("", { length: 60, temperature: 2, seed: stream.seed }), written);
});

test("a fork goes on as the state itself, and neither moves the other", () => {
  const state = model.state("hell", { seed: 5, temperature: 3, repetition_penalty: 1.5 });
  for (let i = 0; i < 7; i++) state.draw();
  const fork = state.fork();
  const draw = (from) => Array.from({ length: 40 }, () => from.draw()).join("");
  const text = draw(fork);
  assert.equal(draw(state), text);
  assert.equal(
    [...model.resume(model.restore(state.snapshot()), { length: 9 })].join(""),
    draw(state).slice(0, 9),
  );
});

test("a token that the model does not have is refused, and nothing is fed", () => {
  const state = model.state("hell", { seed: 5 });
  const before = state.snapshot();
  for (const token of [-1, 8, 1.5, NaN, "1"])
    assert.throws(() => state.feedTokens([1, token]), { name: "OptionError" });
  assert.deepEqual(state.snapshot(), before);
});

test("a snapshot that is damaged, or of another model, is refused", () => {
  const snapshot = model.state("hell", { seed: 5 }).snapshot();
  const text = Buffer.from(snapshot).toString("latin1");
  const changed = (from, to) => new Uint8Array(Buffer.from(text.replace(from, to), "latin1"));
  const refused = { name: "ArtifactError" };
  assert.throws(() => model.restore(snapshot.subarray(1)), refused);
  assert.throws(() => model.restore(snapshot.subarray(0, -1)), refused);
  assert.throws(() => model.restore(changed(/"model":"./, '"model":"g')), refused);
  assert.throws(() => model.restore(changed(/"model":"[0-9a-f]{4}/, '"model":"0000')), /of another model/);
  assert.throws(() => model.restore(changed('"row":0', '"row":0.0')), refused);
  assert.throws(() => model.restore(changed('"min_p":', '"ban":[],"min_p":')), /that is confined; write/);
  assert.throws(() => model.restore(changed('"fed":true', '"fed":false')), /nothing was fed/);
  assert.throws(() => model.restore("text"), { name: "OptionError" });
});

test("probabilities are the model's own, likeliest first", () => {
  const all = model.nextProbabilities("hell");
  assert.equal([...all.keys()][0], "o");
  assert.ok(Math.abs([...all.values()].reduce((sum, p) => sum + p) - 1) < 1e-12);
  assert.deepEqual([...model.nextProbabilities("hell", { top: 2 })], [...all].slice(0, 2));
  assert.throws(() => model.nextProbabilities("hell", { top: 0 }), { name: "OptionError" });
});

test("a score has the figures of training", () => {
  const score = model.score("hello world");
  assert.equal(score.characters, 10);
  assert.equal(score.bits_per_char, score.nats_per_char / Math.LN2);
  assert.equal(score.perplexity, Math.exp(score.nats_per_char));
  assert.throws(() => model.score("h"), { message: "a score needs at least 2 characters, got 1" });
  assert.throws(() => model.score("hello, world", { unknown: "error" }), { name: "UnknownCharacterError" });
});
