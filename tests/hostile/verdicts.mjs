// Reads paths of model files by the line, and prints a JSON line about each: null where it is accepted
// and writes text, else the name and the message of the error.

import { readFileSync } from "node:fs";
import { createInterface } from "node:readline";

import { load } from "../../runtime/web/chargen.js";

for await (const path of createInterface({ input: process.stdin })) {
  let verdict = null;
  try {
    const model = await load(readFileSync(path));
    model.generate("", { length: 3, seed: 0 });
  } catch (error) {
    verdict = [error.name, error.message];
  }
  console.log(JSON.stringify(verdict));
}
