// The vectors of tests/golden, which implementations in all languages replay.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";

import { load } from "../chargen.js";
import { renderForm } from "../src/form.js";
import { Sampler, uniformDraws } from "../src/sampling.js";
import { sha256 } from "../src/sha256.js";

const ROOT = new URL("../../../", import.meta.url);
const casesOf = (name) => JSON.parse(readFileSync(new URL(`tests/golden/${name}.json`, ROOT), "utf8")).cases;

/** @type {Map<string, Promise<import("../chargen.js").Model>>} */
const models = new Map();
function open(path) {
  if (!models.has(path)) models.set(path, load(new URL(path, ROOT)));
  return models.get(path);
}

/** Fails but for a draw that another one was so near to that machines may differ there. */
function assertText(found, { text, near, margin }) {
  if (found === text) return;
  const place = [...text].findIndex((character, index) => character !== [...found][index]);
  assert.ok(
    near.includes(place),
    `${JSON.stringify(found)} differs from ${JSON.stringify(text)} at ${place}; margin ${margin}`,
  );
  console.log(`near tie at ${place} of ${JSON.stringify(text)}, margin ${margin}`);
}

function assertClose(found, wanted, tolerance) {
  assert.equal(found.length, wanted.length);
  const difference = Math.max(...wanted.map((number, place) => Math.abs(number - found[place])));
  assert.ok(difference <= tolerance, `differs by ${difference}, more than ${tolerance}`);
}

test("draws", () => {
  for (const { seed, row, first, bits } of casesOf("philox")) {
    const found = bits.map((_, place) => {
      const draw = first + place;
      return uniformDraws(BigInt(seed), BigInt(row), Math.floor(draw / 4))[draw % 4] * 2 ** 53;
    });
    assert.deepEqual(found, bits);
  }
});

for (const { name, options, seed, row, seen, logits, tokens, kept, probabilities } of casesOf("sampling")) {
  test(`sampling: ${name}`, () => {
    const sampler = new Sampler({ ...options, seed: BigInt(seed) }, logits.length, BigInt(row));
    const found = tokens.map((_, drawn) => {
      sampler.drawn = drawn;
      sampler.seen?.fill(0);
      sampler.see(seen);
      return sampler.sample(Float32Array.from(logits));
    });
    assert.deepEqual(found, tokens);
    if (options.temperature === 0) return;
    const sums = sampler.weights; // what was drawn from
    const weights = sums.map((sum, token) => (sum - (token ? sums[token - 1] : 0)) / sums.at(-1));
    assertClose(
      kept.map((token) => weights[token]),
      probabilities,
      1e-9,
    );
    assertClose([kept.reduce((sum, token) => sum + weights[token], 0)], [1], 1e-9);
  });
}

test("logits", async () => {
  for (const { model, text, tolerance, logits } of casesOf("logits")) {
    assertClose((await open(model)).state(text).logits(), logits, tolerance);
  }
});

test("texts, and why they end", async () => {
  for (const { model, start, length, options, seed, row, ended, ...text } of casesOf("texts")) {
    const stream = (await open(model)).stream(start, {
      length,
      ...options,
      seed: BigInt(seed),
      row: BigInt(row),
    });
    assertText([...stream].join(""), text);
    assert.equal(stream.ended, ended);
  }
});

test("snapshots are read, written on from, and written again byte for byte", async () => {
  for (const { model, snapshot, length, ...text } of casesOf("snapshots")) {
    const bytes = new Uint8Array(Buffer.from(snapshot, "base64"));
    const state = (await open(model)).restore(bytes);
    assert.deepEqual(state.snapshot(), bytes);
    assertText(Array.from({ length }, () => state.draw()).join(""), text);
  }
});

test("scores", async () => {
  for (const { model, call, arguments: given, tolerance, scores } of casesOf("scores")) {
    const { text, texts, ...options } = given;
    const opened = await open(model);
    const found =
      call === "score"
        ? [opened.score(text, options)]
        : texts.map((each) => opened.scoreAlone(each, options));
    found.forEach((score, place) => {
      assertClose(score.log_probabilities, scores[place].log_probabilities, tolerance);
      assert.equal(score.unknown, scores[place].unknown);
    });
  }
});

test("next characters", async () => {
  for (const { model, text, tolerance, next } of casesOf("next")) {
    const [characters, probabilities] = [0, 1].map((at) => next.map((pair) => pair[at]));
    const found = (await open(model)).nextProbabilities(text, { top: next.length });
    assert.deepEqual([...found.keys()], characters);
    assertClose([...found.values()], probabilities, tolerance);
  }
});

test("forms", async () => {
  for (const { precision, sizes, parts } of casesOf("forms")) {
    const found = [];
    let literal = [];
    for (const part of [...renderForm(precision, sizes), null]) {
      if (part instanceof Uint8Array) {
        literal.push(...part);
        continue;
      }
      if (literal.length)
        found.push({ bytes: literal.length, sha256: await sha256(Uint8Array.from(literal)) });
      if (part) found.push({ hole: part.name, type: part.kind });
      literal = [];
    }
    assert.deepEqual(
      found,
      parts.map(({ at, shape, ...part }) => part),
    );
  }
});
