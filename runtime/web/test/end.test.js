// Models of documents: texts begin after an end token, which is never printed, and end where it is drawn.

import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { test } from "node:test";

import { load } from "../chargen.js";
import { readMetadata } from "../src/file.js";
import { messageField, renderForm, textField } from "../src/form.js";

const { metadata } = readMetadata(
  new Uint8Array(readFileSync(new URL("../../chargen_ort/demo.onnx", import.meta.url))),
);
const SIZES = { embedding_dim: 4, hidden_size: 8, num_layers: 2 };

/** A sealed file whose weights are small and whole, so that its text is not noise around one token. */
function makeModel(changes) {
  const config = { ...JSON.parse(metadata.get("chargen.config")), ...SIZES, ...changes };
  const parity = { ...JSON.parse(metadata.get("chargen.parity")), vectors: [] };
  const entries = {
    ...Object.fromEntries(metadata),
    "chargen.config": JSON.stringify(config),
    "chargen.parity": JSON.stringify(parity),
  };
  delete entries["chargen.sha256"];
  const weights = renderForm("fp32", { vocab_size: config.tokens.length, ...config }).map((part, place) =>
    part instanceof Uint8Array
      ? part
      : Buffer.from(
          Float32Array.from({ length: part.count }, (_, index) => ((index * 7 + place * 5) % 11) / 8 - 0.6)
            .buffer,
        ),
  );
  const entry = (key, value) =>
    Buffer.concat(messageField(14, [...textField(1, key), ...textField(2, value)]));
  const body = Buffer.concat([
    ...weights,
    ...Object.entries(entries).map(([key, value]) => entry(key, value)),
  ]);
  return Buffer.concat([body, entry("chargen.sha256", createHash("sha256").update(body).digest("hex"))]);
}

const DOCUMENTS = { tokens: ["a", "b", "c", ""], end: true, separator: "", replacement: "a" };
const model = await load(makeModel(DOCUMENTS));

test("a text ends where the model writes the end", () => {
  const stream = model.stream("", { seed: 1 });
  const written = [...stream].join("");
  assert.equal(stream.ended, "end");
  assert.match(written, /^[abc]*$/);
  const state = model.state("", { seed: 1 });
  for (const character of written) assert.equal(state.draw(), character);
  assert.equal(state.draw(), "");
});

test("after its end a state stands before the next text, and its draws go on", () => {
  const state = model.state("ab", { seed: 2, repetition_penalty: 1.5 });
  while (state.draw());
  const snapshot = state.snapshot();
  assert.match(Buffer.from(snapshot).toString("latin1"), /"fed":false.*"seen":\[\]/s);
  assert.ok(state.hidden().every((number) => number === 0));
  const next = model.restore(snapshot);
  const texts = [state, next].map((each) => Array.from({ length: 9 }, () => each.draw()).join("|"));
  assert.equal(texts[0], texts[1]);
});

test("a start is read after the end token, which does not count as used", () => {
  const given = model.state("ab", { seed: 3 }).logits();
  assert.notDeepEqual(
    given,
    (() => {
      const other = model.state("", { seed: 3 });
      other.feed("b");
      return other.logits();
    })(),
  );
  assert.match(
    Buffer.from(model.state("ab", { repetition_penalty: 2, seed: 1 }).snapshot()).toString("latin1"),
    /"seen":\[0,1\]/,
  );
});

test("the end has a probability, and a score", () => {
  assert.ok(model.nextProbabilities("ab").has(""));
  assert.equal(model.score("ab").characters, 3);
  assert.equal(model.score("").characters, 1);
  assert.equal(model.scoreAlone("ab").characters, 2);
  assert.throws(() => model.score("ab", { window: 2 }), /window is for running text/);
});

test("an end token that contradicts the rest is refused", async () => {
  for (const wrong of [
    { tokens: ["a", "b", "c"] },
    { separator: "a" },
    { replacement: "" },
    { end: false },
    { tokens: [""] },
  ]) {
    await assert.rejects(load(makeModel({ ...DOCUMENTS, ...wrong })), { name: "ArtifactError" });
  }
});
