// Does in JavaScript what a test did in Python, and prints what differs, a line each.
//
//     node tests/tools/replay.mjs CASES.json

import { readFileSync } from "node:fs";
import { load } from "../../runtime/web/chargen.js";

const near = (a, b) => Math.abs(a - b) <= 1e-5 * Math.max(1, Math.abs(b));

function compare(where, found, expected) {
  const [a, b] = [found, expected].map((value) => JSON.stringify(value));
  if (a !== b) console.log(`${where}: ${a} instead of ${b}`);
}

function compareNumbers(where, found, expected) {
  if (found.length !== expected.length || !expected.every((value, i) => near(found[i], value)))
    console.log(`${where}: ${[...found]} instead of ${expected}`);
}

/** What stands before the numbers of a snapshot. */
const header = (snapshot) => Buffer.from(snapshot).toString("latin1").split("\n").slice(0, 2);

function replayState(model, { start, options, draws, text, snapshot, more }) {
  const state = model.state(start, options);
  const draw = (from, count) => Array.from({ length: count }, () => from.draw()).join("");
  compare(`state of ${start}`, draw(state, draws), text);
  const saved = new Uint8Array(Buffer.from(snapshot, "base64"));
  compare(`snapshot of ${start}`, header(state.snapshot()), header(saved));
  compare(`snapshot of ${start}, restored`, draw(model.restore(saved), more.length), more.join(""));
}

/** Whether a snapshot is refused as damaged. */
function refuses(model, snapshot) {
  try {
    model.restore(new Uint8Array(Buffer.from(snapshot, "base64")));
  } catch (error) {
    return error.name === "ArtifactError" && error.message.startsWith("the snapshot is damaged: ");
  }
  return false;
}

for (const { path, texts, scores, next, states, forged } of JSON.parse(readFileSync(process.argv[2], "utf8"))) {
  const model = await load(new Uint8Array(readFileSync(path)));
  for (const { start, options, text } of texts)
    compare(`${start} ${JSON.stringify(options)}`, model.generate(start, options), text);
  for (const { text, alone, options, total, characters, unknown, own } of scores) {
    const score = alone ? model.scoreAlone(text, options) : model.score(text, options);
    compareNumbers(`score of ${text}`, [score.total], [total]);
    compareNumbers(`score of each character of ${text}`, score.character_log_probabilities, own);
    compare(`size of ${text}`, [score.characters, score.unknown], [characters, unknown]);
  }
  for (const { text, found } of next) {
    const [characters, probabilities] = [0, 1].map((at) => found.map((pair) => pair[at]));
    const own = model.nextProbabilities(text, { top: found.length });
    compare(`what follows ${text}`, [...own.keys()], characters);
    compareNumbers(`how likely it follows ${text}`, [...own.values()], probabilities);
  }
  for (const state of states) replayState(model, state);
  forged.forEach((snapshot, at) => compare(`forged snapshot ${at} is refused`, refuses(model, snapshot), true));
}
