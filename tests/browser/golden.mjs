// Runs runtime/web/test/golden.test.js in Chromium, and prints as JSON how many tests there were and which
// failed. What the file takes from Node stands in here, as little of it as it needs.

import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { extname } from "node:path";

const ROOT = new URL("../../", import.meta.url);
const { chromium } = createRequire(new URL("runtime/web/package.json", ROOT))("playwright-core");

const STAND_INS = {
  "node:test": `export const test = (name, work) =>
    globalThis.tests.push(Promise.resolve().then(work).then(() => null, (error) => name + ": " + error.message));`,
  "node:fs": `export function readFileSync(url) {
    const request = new XMLHttpRequest();
    request.open("GET", url, false);
    request.send();
    return request.responseText;
  }`,
  "node:assert/strict": `const told = (value) => JSON.stringify(value, (_, each) => (ArrayBuffer.isView(each) ? [...each] : each));
    const ok = (holds, message) => { if (!holds) throw new Error(message); };
    const deepEqual = (found, wanted) => ok(told(found) === told(wanted), told(found) + " is not " + told(wanted));
    export default { ok, deepEqual, equal: deepEqual };`,
};
const imports = Object.fromEntries(
  Object.entries(STAND_INS).map(([name, code]) => [name, `data:text/javascript,${encodeURIComponent(code)}`]),
);
const html = `<!doctype html><script>
  globalThis.tests = [];
  globalThis.Buffer = { from: (text) => Uint8Array.from(atob(text), (character) => character.charCodeAt(0)) };
</script><script type="importmap">${JSON.stringify({ imports })}</script>`;

const browser = await chromium.launch({ executablePath: process.env.CHROMIUM, args: ["--no-sandbox"] });
const page = await browser.newPage();
await page.route("http://localhost/**", (route) => {
  const path = new URL(route.request().url()).pathname;
  if (path === "/") return route.fulfill({ contentType: "text/html", body: html });
  const contentType = extname(path) === ".js" ? "text/javascript" : "application/octet-stream";
  return route.fulfill({ contentType, body: readFileSync(new URL(`.${path}`, ROOT)) });
});
await page.goto("http://localhost/");
const results = await page.evaluate(async () => {
  await import("/runtime/web/test/golden.test.js");
  return Promise.all(globalThis.tests);
});
await browser.close();
console.log(JSON.stringify({ tests: results.length, failed: results.filter(Boolean) }));
