// Opens a page from disk in Chromium as a person would, and prints as JSON what it saw.
//
//     node page.mjs PAGE DAMAGED.onnx START SEED

import { createRequire } from "node:module";

const { chromium } = createRequire(new URL("../../runtime/web/package.json", import.meta.url))(
  "playwright-core",
);
const [page_, damaged, start, seed] = process.argv.slice(2);
const found = { errors: [], requests: [] };
const browser = await chromium.launch({ executablePath: process.env.CHROMIUM, args: ["--no-sandbox"] });

/** WCAG's contrast of the texts that are shown with what lies behind them; the least, and whose it is. */
function leastContrast() {
  const channels = (color) => color.match(/[\d.]+/g).map(Number);
  const light = ([r, g, b]) => {
    const [x, y, z] = [r, g, b].map((c) =>
      c / 255 <= 0.04045 ? c / 255 / 12.92 : ((c / 255 + 0.055) / 1.055) ** 2.4,
    );
    return 0.2126 * x + 0.7152 * y + 0.0722 * z;
  };
  const behind = (element) => {
    const own = channels(getComputedStyle(element).backgroundColor);
    const [r, g, b, alpha = 1] = own;
    if (alpha === 1) return [r, g, b];
    const below = element.parentElement ? behind(element.parentElement) : [255, 255, 255];
    return [r, g, b].map((c, place) => alpha * c + (1 - alpha) * below[place]);
  };
  let least = [Infinity, ""];
  for (const element of document.querySelectorAll("body *")) {
    const shows =
      [...element.childNodes].some((node) => node.nodeType === 3 && node.data.trim()) ||
      element.matches("textarea, input[type=text]");
    if (!shows || !element.checkVisibility() || element.matches("script, :disabled")) continue;
    const [one, two] = [light(channels(getComputedStyle(element).color)), light(behind(element))].sort(
      (a, b) => b - a,
    );
    const contrast = (one + 0.05) / (two + 0.05);
    if (contrast < least[0]) least = [contrast, element.outerHTML.slice(0, 80)];
  }
  return least;
}

async function openPage(options = {}) {
  const context = await browser.newContext({ viewport: { width: 1180, height: 900 }, ...options });
  const page = await context.newPage();
  page.on(
    "console",
    (message) => ["error", "warning"].includes(message.type()) && found.errors.push(message.text()),
  );
  page.on("pageerror", (error) => found.errors.push(error.message));
  page.on("request", (request) => /^(blob|data):/.test(request.url()) || found.requests.push(request.url()));
  await page.goto(`file://${page_}`);
  await written(page);
  return page;
}
const written = (page) =>
  page.waitForFunction(
    () => document.body.dataset.running === "false" && document.querySelector("#status").textContent,
    undefined,
    { timeout: 30_000 },
  );
const text = async (page) => (await page.locator("#view").textContent()).slice(start.length);
async function write(page, options) {
  await page.fill("#start", start);
  await page.fill("#seed", seed);
  for (const [id, value] of Object.entries(options)) await page.locator(`#${id}`).fill(value);
  await page.click("#write");
  await written(page);
  return text(page);
}

const page = await openPage();
found.plain = await write(page, { length: "60", temperature: "0.8" });
found.hot = await write(page, { temperature: "1.7" });
found.topP = await write(page, { temperature: "1.7", "top-p": "0.6" });
found.status = await page.textContent("#status");

await page.focus("#view");
await page.keyboard.press("Home");
await page.keyboard.press("ArrowRight");
found.bars = await page.textContent("#bars-title");
found.actual = await page.locator("#bars .actual b").textContent();
found.shares = await page.locator("#bars li").count();

// a text longer than the page offers, stopped from within: a busy machine is not done before
await page.evaluate(() => {
  const slider = document.querySelector("#length");
  slider.max = "20000";
  slider.value = "20000";
  const [view, button] = ["#view", "#write"].map((name) => document.querySelector(name));
  button.click();
  return new Promise((stopped) => {
    const watch = new MutationObserver(() => {
      if (view.querySelectorAll("span").length < 20) return;
      watch.disconnect();
      button.click();
      stopped();
    });
    watch.observe(view, { childList: true, subtree: true });
  });
});
await written(page);
found.stopped = await page.textContent("#status");
await page.locator("#length").evaluate((slider) => {
  slider.max = "2000";
});
await page.locator("#length").fill("60");

await page.fill("#start", "hello, Q");
await page.click("#write");
await page.waitForSelector("#error:not([hidden])");
found.unknown = await page.textContent("#error");

await page.setInputFiles("#file", damaged);
await page.waitForFunction(() => document.querySelector("#error").textContent.includes(".onnx"));
found.damaged = await page.textContent("#error");

await page.click("#tab-score");
await page.fill("#text", start + found.plain);
await page.click("#score");
await page.waitForFunction(() => document.querySelector("#figures").textContent);
found.figures = await page.textContent("#figures");
found.facts = await page.textContent("#facts");
found.network = await page.evaluate(() =>
  fetch("https://example.com/").then(
    () => "let through",
    () => "forbidden",
  ),
);
found.errors = found.errors.filter((error) => !error.includes("example.com")); // which that was to be

found.contrast = [];
for (const colorScheme of ["light", "dark"]) {
  const phone = await openPage({ colorScheme, viewport: { width: 360, height: 740 } });
  found.contrast.push(await phone.evaluate(leastContrast));
  found.overflow = await phone.evaluate(
    () => document.documentElement.scrollWidth > document.documentElement.clientWidth,
  );
}
await browser.close();
console.log(JSON.stringify(found));
