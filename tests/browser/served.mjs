// Opens the page of a server in Chromium as a person would, and prints as JSON what it saw.
//
//     node served.mjs URL KEY START SEED

import { createRequire } from "node:module";

const { chromium } = createRequire(new URL("../../runtime/web/package.json", import.meta.url))(
  "playwright-core",
);
const [url, key, start, seed] = process.argv.slice(2);
const found = { errors: [], requests: [] };
const browser = await chromium.launch({ executablePath: process.env.CHROMIUM, args: ["--no-sandbox"] });
const context = await browser.newContext({ httpCredentials: { username: "any", password: key } });
const page = await context.newPage();
page.on(
  "console",
  (message) => ["error", "warning"].includes(message.type()) && found.errors.push(message.text()),
);
page.on("pageerror", (error) => found.errors.push(error.message));
context.on(
  "request",
  (request) => /^(blob|data):/.test(request.url()) || found.requests.push(request.url()),
);

const text = (id) => page.textContent(`#${id}`);
const written = () =>
  page.waitForFunction(
    () => document.body.dataset.running === "false" && document.querySelector("#status").textContent,
    undefined,
    { timeout: 30_000 },
  );
async function write(options) {
  for (const [id, value] of Object.entries(options)) await page.locator(`#${id}`).fill(value);
  await page.click("#write");
  await written();
  return text("view");
}
async function complaint(part) {
  await page.waitForFunction((part) => document.querySelector("#error").textContent.includes(part), part);
  return text("error");
}

await page.goto(url);
await written();
found.plain = await write({ start, seed, length: "60", temperature: "0.8" });
found.topP = await write({ temperature: "1.7", "top-p": "0.6" });
found.status = await text("status");
found.given = await page.locator("#view .given").count();
found.next = await page.locator("#bars li").count();

await page.focus("#view");
await page.keyboard.press("Home");
await page.keyboard.press("ArrowRight");
found.bars = await text("bars-title");
found.actual = await page.locator("#bars .actual b").textContent();

await page.locator("#length").fill("2000");
await page.click("#write");
await page.waitForFunction(() => document.querySelectorAll("#view span").length > 100);
await page.click("#write");
await written();
found.stopped = await text("status");

await page.fill("#start", "hello, Q");
await page.click("#write");
found.unknown = await complaint("does not know");

await page.click("#tab-score");
await page.fill("#text", `${found.plain}Q`);
await page.click("#score");
await page.waitForFunction(() => document.querySelector("#figures").textContent);
found.figures = await text("figures");
found.shades = await page.locator("#view span").evaluateAll((spans) => spans.map((span) => span.style.length));
found.facts = await text("facts");

await page.selectOption("#models", "ending");
await page.waitForFunction(() => document.title === "ending");
await page.click("#tab-write");
found.several = await write({ start: "", seed, length: "200", temperature: "1", "top-p": "1" });

found.network = await page.evaluate(() =>
  fetch("https://example.com/").then(
    () => "let through",
    () => "forbidden",
  ),
);
found.errors = found.errors.filter((error) => !/example\.com|400/.test(error)); // which were to be
await browser.close();
console.log(JSON.stringify(found));
