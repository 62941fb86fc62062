// Microseconds a character in Chromium, of chargen.js and of onnxruntime-web, turn by turn, as JSON.
//
//     node speed.mjs RUNS MODEL.onnx CHARACTERS …

import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { dirname, extname } from "node:path";

const WEB = new URL("../../runtime/web/", import.meta.url);
const require = createRequire(new URL("package.json", WEB));
const { chromium } = require("playwright-core");
const ORT = dirname(require.resolve("onnxruntime-web")) + "/";
const TYPES = {
  ".js": "text/javascript",
  ".mjs": "text/javascript",
  ".wasm": "application/wasm",
  ".html": "text/html",
};
const [runs, ...work] = process.argv.slice(2);

/** In the page: medians of both for one model. */
async function measure([model, characters, runs]) {
  const { load } = await import("/web/chargen.js");
  const ort = await import("/ort/ort.wasm.min.mjs");
  ort.env.wasm.wasmPaths = "/ort/";
  ort.env.wasm.numThreads = 1;
  const bytes = new Uint8Array(await (await fetch(model)).arrayBuffer());
  const own = await load(bytes);
  const session = await ort.InferenceSession.create(bytes, { executionProviders: ["wasm"] });
  const { num_layers, hidden_size, tokens } = own.config;
  const ours = () => own.generate("", { length: characters, seed: 1, temperature: 0.8 });
  const theirs = async () => {
    // the step alone: they draw nothing
    let hidden = new ort.Tensor("float32", new Float32Array(num_layers * hidden_size), [
      1,
      num_layers,
      hidden_size,
    ]);
    for (let made = 0; made < characters; made++) {
      const token = new ort.Tensor("int64", BigInt64Array.of(BigInt(made % tokens.length)), [1, 1]);
      hidden = (await session.run({ token, hidden })).next_hidden;
    }
  };
  const times = [[], []];
  for (let run = -1; run < runs; run++) {
    for (const [place, work] of [ours, theirs].entries()) {
      const begun = performance.now();
      await work();
      if (run >= 0) times[place].push(((performance.now() - begun) * 1000) / characters);
    }
  }
  return times.map((kept) => kept.sort((a, b) => a - b)[kept.length >> 1]);
}

const browser = await chromium.launch({ executablePath: process.env.CHROMIUM, args: ["--no-sandbox"] });
const page = await browser.newPage();
await page.route("**/*", (route) => {
  const path = new URL(route.request().url()).pathname;
  if (path === "/") return route.fulfill({ contentType: "text/html", body: "<!doctype html>" });
  const file = path.startsWith("/web/")
    ? new URL(path.slice(5), WEB)
    : path.startsWith("/ort/")
      ? ORT + path.slice(5)
      : path;
  return route.fulfill({
    contentType: TYPES[extname(path)] ?? "application/octet-stream",
    body: readFileSync(file),
  });
});
await page.goto("http://localhost/");
const found = [];
for (let place = 0; place < work.length; place += 2) {
  found.push(await page.evaluate(measure, [work[place], Number(work[place + 1]), Number(runs)]));
}
await browser.close();
console.log(JSON.stringify(found));
