// What a page shows; the model runs in a worker, which page/worker.js and chargen.js are.

/** @typedef {import("./worker.js").Place} Place */

const [LEAST_BITS, MOST_BITS] = [1, 8]; // what is not shaded yet, and what is shaded most
const SIGNS = new Map([
  ["\n", "line"],
  [" ", "space"],
  ["\t", "tab"],
  ["", "end"],
]);

/** @type {(id: string) => any} */
const element = (id) => document.getElementById(id);
/** @type {(tag: string, text?: string, className?: string) => HTMLElement} */
const make = (tag, text = "", className = "") =>
  Object.assign(document.createElement(tag), { textContent: text, className });

const decode = (/** @type {string} */ id) =>
  Uint8Array.from(atob(element(id).textContent), (character) => character.charCodeAt(0));
const count = (/** @type {any} */ number) => Number(number).toLocaleString("en");
const bits = (/** @type {number} */ nats) => `${(nats / Math.LN2).toFixed(3)} bits a character`;

/** @type {Worker} */
let worker;
/** @type {Map<number, {resolve: (answer: any) => void, reject: (error: Error) => void}>} */
const waiting = new Map();
let calls = 0;

/** @type {Place[]} */
let places = [];
/** @type {[string, number][]} */
let next = []; // what may follow the last place
/** @type {number | null} */
let cursor = null; // the place that is looked at; null is behind the last
let opened = false;
const served = document.body.dataset.served !== undefined; // by a server, which has the models
let running = false;
let between = "\n"; // what stands for the end of a text before the next one

/** @type {(call: string, given?: any) => Promise<any>} */
function ask(call, given) {
  return new Promise((resolve, reject) => {
    waiting.set(++calls, { resolve, reject });
    worker.postMessage({ id: calls, call, given });
  });
}

/** @param {MessageEvent} event */
function hear({ data }) {
  if (data.kind === "places") {
    if (data.begin) clear();
    add(data.places, data.begin ? "given" : "");
    return;
  }
  const { resolve, reject } = /** @type {any} */ (waiting.get(data.id));
  waiting.delete(data.id);
  if (data.error === undefined) resolve(data.answer);
  else reject(new Error(data.error));
}

async function begin() {
  if (!("DecompressionStream" in globalThis)) throw new Error("this page needs a browser of 2023 or newer");
  const unpacked = new Blob([decode("code")]).stream().pipeThrough(new DecompressionStream("gzip"));
  const code = await new Response(unpacked).text();
  worker = new Worker(URL.createObjectURL(new Blob([code], { type: "text/javascript" })));
  worker.onmessage = hear;
  if (!served) return openModel(decode("model").buffer, document.title);
  const names = await ask("models", document.baseURI);
  element("models").replaceChildren(...names.map((/** @type {string} */ name) => new Option(name)));
  await openModel(names[0], names[0]);
}

/** @type {(model: ArrayBuffer | string, name: string) => Promise<void>} the bytes, or a server's name */
async function openModel(model, name) {
  const card = await ask("open", model);
  element("title").textContent = document.title = name;
  const { config, training, size } = card;
  const names = training.corpora.map((/** @type {any} */ corpus) => corpus.name).join(", ");
  element("about").textContent =
    `A language model of ${count(Math.round(size / 1000))} kB that learnt to write from ${names}, ` +
    `${count(training.characters)} characters. It runs ${served ? "on this server" : "here, on your device"}.`;
  for (const [id, value] of [
    ["temperature", config.sampling.temperature],
    ["top-p", config.sampling.top_p],
  ])
    element(id).value = value;
  showOptions();
  element("facts").replaceChildren(
    ...facts(card).flatMap(([term, ...texts]) => [make("dt", term), ...texts.map(detail)]),
  );
  opened = true;
  between = config.tokens.includes("\n") ? "\n\n" : "\n";
  setRunning(false);
  clear();
  complain("");
}

/** @param {string} text with a seal as code */
function detail(text) {
  const item = make("dd", text);
  if (/^[0-9a-f]{64}$/.test(text)) item.replaceChildren(make("code", text));
  return item;
}

const share = (/** @type {number} */ part) => `${(100 * part).toFixed(1)}%`;
const gap = (/** @type {number} */ size) => (size ? `at most ${size.toExponential(0)}` : "0");

/** What the model's card says: a term, and sentences for it. @param {any} card @returns {string[][]} */
function facts({ config, training, parity, properties, sha256, difference }) {
  const { validation, baseline, samples, base, split } = training;
  const good = validation
    ? [`${bits(validation.nats_per_char)} on ${count(validation.characters)} held-out characters`]
    : ["no text was held out"];
  if (baseline)
    good.push(
      `an n-gram there: ${bits(baseline.nats_per_char)} (${baseline.method}, order ${baseline.order})`,
    );
  const searched = samples?.searched < 1 ? `the ${share(samples.searched)} looked through of ` : "";
  const own =
    samples &&
    `${share(samples.share_in_corpus)} of ${count(samples.count)} stand in ${searched}the corpus, ${share(samples.share_of_doubles)} repeat an earlier one`;
  const times = Number(training.epochs).toPrecision(3);
  const proof = [
    `${gap(parity.largest_logits_difference)} from ${parity.against} over ${count(parity.steps)} steps`,
  ];
  if (difference !== null) proof.push(`here, in this browser, ${gap(difference)} from its test vectors`);
  const unit = config.end || config.unit !== "char" ? "tokens" : "characters";
  return [
    [
      "Trained on",
      ...training.corpora.map(
        (/** @type {any} */ corpus) => `${corpus.name}: ${count(corpus.characters)} characters`,
      ),
      ...(split.documents === "none" ? [] : [`read as ${count(split.count)} documents`]),
      `${count(training.steps)} steps, ${times} times through${base ? `, from ${base.name}` : ""}`,
    ],
    ["How well it predicts", ...good],
    ...(own ? [["Its own texts", own]] : []),
    [
      "Network",
      `GRU ${config.num_layers} × ${config.hidden_size}, embedding ${config.embedding_dim}, ${config.precision}`,
      `${count(config.tokens.length)} ${unit}`,
    ],
    ["How far its logits are", ...proof],
    ...(properties.license ? [["Licence", properties.license]] : []),
    [served ? "Seal" : "Seal, checked here", sha256],
  ];
}

function clear() {
  [places, next, cursor] = [[], [], null];
  element("view").replaceChildren();
  showBars();
}

const shadeOf = (/** @type {number} */ surprise) =>
  Math.min(1, Math.max(0, (surprise - LEAST_BITS) / (MOST_BITS - LEAST_BITS))).toFixed(2);

const textOf = (/** @type {Place[]} */ some) => some.map(({ character }) => character || between).join("");

/** @type {(more: Place[], className: string) => void} */
function add(more, className) {
  const spans = more.map(({ character, bits: surprise }) => {
    const span = make("span", character || between, className);
    if (surprise !== null) span.style.setProperty("--shade", `calc(var(--most) * ${shadeOf(surprise)})`);
    return span;
  });
  const view = element("view");
  const atEnd = view.scrollTop + view.clientHeight > view.scrollHeight - 40;
  view.append(...spans);
  if (atEnd) view.scrollTop = view.scrollHeight;
  places.push(...more);
  if (cursor === null && places.length) showBars(places.length - 1);
}

/** The bars of the cursor's place, or another one. @param {number | null} place */
function showBars(place = cursor) {
  const at = place === null ? undefined : places[place];
  const rows = [...(at ? at.top : next)];
  if (at && at.bits !== null && !rows.some(([character]) => character === at.character))
    rows.push([at.character, 2 ** -at.bits]);
  const end = place ?? places.length;
  const shown = textOf(places.slice(Math.max(0, end - 12), end)).replaceAll("\n", "↵");
  element("bars-title").textContent = !places.length
    ? "What comes next"
    : shown
      ? `After “${shown}”`
      : "At the beginning";
  element("bars").replaceChildren(
    ...rows.map(([character, share]) => {
      const sign = SIGNS.get(character);
      const item = make("li", "", at && character === at.character ? "actual" : "");
      const bar = make("i");
      bar.style.setProperty("--share", `${(100 * share).toFixed(2)}%`);
      const track = make("div");
      track.append(bar);
      item.append(
        make("b", sign ?? character, sign ? "sign" : ""),
        track,
        make("span", share < 0.0005 ? "< 0.1%" : `${(100 * share).toFixed(1)}%`),
      );
      return item;
    }),
  );
}

/** @param {number | null} place */
function moveTo(place) {
  const spans = element("view").children;
  if (cursor !== null) spans[cursor]?.classList.remove("here");
  cursor = place;
  if (place !== null) {
    spans[place].classList.add("here");
    spans[place].scrollIntoView({ block: "nearest" });
  }
  showBars();
}

/** @param {string} message */
function complain(message) {
  element("error").textContent = message;
  element("error").hidden = !message;
}

function showOptions() {
  element("length-shown").textContent = count(element("length").value);
  const temperature = Number(element("temperature").value);
  element("temperature-shown").textContent = temperature === 0 ? "0, likeliest" : String(temperature);
  const share = Number(element("top-p").value);
  element("top-p-shown").textContent = share === 1 ? "1, off" : String(share);
}

async function write() {
  if (running) return void ask("stop");
  const seed = element("seed").value.trim();
  if (!/^\d{0,20}$/.test(seed))
    return complain(`the seed is ${JSON.stringify(seed)}; give a whole number from 0, or nothing`);
  complain("");
  setRunning(true);
  try {
    const written = await ask("write", {
      start: element("start").value,
      length: Number(element("length").value),
      temperature: Number(element("temperature").value),
      top_p: Number(element("top-p").value),
      ...(seed ? { seed: BigInt(seed) } : {}),
    });
    next = written.next;
    if (cursor === null) showBars();
    const why = { end: "at an end", stop: "at a stop string", cancelled: "stopped", length: "" }[
      /** @type {"end"} */ (written.ended)
    ];
    const rate =
      written.milliseconds > 0
        ? `, ${count(Math.round((1000 * written.made) / written.milliseconds))} a second`
        : "";
    element("status").textContent =
      `${count(written.made)} characters${rate}${why ? `, ${why}` : ""}; seed ${written.seed}`;
  } catch (error) {
    complain(/** @type {Error} */ (error).message);
  }
  setRunning(false);
}

/** @param {boolean} now */
function setRunning(now) {
  running = now;
  if (now) element("status").textContent = "";
  element("write").textContent = now ? "Stop" : "Write";
  element("write").disabled = !opened;
  element("again").disabled = element("score").disabled = now || !opened;
  element("copy").disabled = now || !places.length;
  document.body.dataset.running = String(now);
}

async function score() {
  complain("");
  try {
    const found = await ask("score", { text: element("text").value });
    clear();
    add(found.places, "");
    next = found.next;
    showBars();
    const unknown = found.unknown ? `, ${count(found.unknown)} unknown to the model` : "";
    element("figures").textContent =
      `${found.bits_per_char.toFixed(3)} bits a character, perplexity ${found.perplexity.toFixed(2)}, ${count(found.characters)} characters${unknown}`;
  } catch (error) {
    complain(/** @type {Error} */ (error).message);
  }
}

/** @param {string} name */
function choose(name) {
  for (const each of ["write", "score"]) {
    const tab = element(`tab-${each}`);
    tab.setAttribute("aria-selected", String(each === name));
    tab.tabIndex = each === name ? 0 : -1;
    element(`panel-${each}`).hidden = each !== name;
  }
}

/** @param {File | undefined} file */
async function openFile(file) {
  if (!file) return;
  try {
    await openModel(await file.arrayBuffer(), file.name.replace(/\.onnx$/, ""));
  } catch (error) {
    complain(`${file.name}: ${/** @type {Error} */ (error).message}`);
  }
}

/** @param {string} name */
const openServed = (name) => openModel(name, name).catch((error) => complain(error.message));

/** Where a key of the view moves the cursor. @type {{[key: string]: (at: number) => number}} */
const KEYS = {
  ArrowLeft: (at) => at - 1,
  ArrowRight: (at) => at + 1,
  Home: () => 0,
  End: () => places.length,
};

function listen() {
  const on = (
    /** @type {string} */ id,
    /** @type {string} */ event,
    /** @type {(event: any) => void} */ then,
  ) => element(id).addEventListener(event, then);
  on("panel-write", "submit", (event) => (event.preventDefault(), write()));
  on("panel-score", "submit", (event) => (event.preventDefault(), score()));
  on("again", "click", () => ((element("seed").value = ""), write()));
  on("copy", "click", () => navigator.clipboard.writeText(textOf(places)));
  for (const id of ["length", "temperature", "top-p"]) on(id, "input", showOptions);
  for (const [id, act] of [
    ["start", write],
    ["text", score],
  ]) {
    on(/** @type {string} */ (id), "keydown", (event) => {
      if (event.key === "Enter" && (event.ctrlKey || event.metaKey) && !running)
        /** @type {() => void} */ (act)();
    });
  }
  for (const name of ["write", "score"]) {
    on(`tab-${name}`, "click", () => choose(name));
    on(`tab-${name}`, "keydown", (event) => {
      if (!["ArrowLeft", "ArrowRight"].includes(event.key)) return;
      choose(name === "write" ? "score" : "write");
      element(`tab-${name === "write" ? "score" : "write"}`).focus();
    });
  }
  const placeOf = (/** @type {any} */ event) => [...element("view").children].indexOf(event.target);
  on("view", "pointerover", (event) => placeOf(event) >= 0 && showBars(placeOf(event)));
  on("view", "pointerleave", () => showBars());
  on("view", "click", (event) => moveTo(placeOf(event) >= 0 ? placeOf(event) : null));
  on("view", "keydown", (event) => {
    const move = KEYS[event.key];
    if (!move || !places.length) return;
    event.preventDefault();
    const at = Math.max(0, move(cursor ?? places.length));
    moveTo(at >= places.length ? null : at);
  });
  if (served) return on("models", "change", ({ target }) => openServed(target.value));
  on("file", "change", ({ target }) => openFile(target.files[0]).then(() => (target.value = "")));
  document.addEventListener(
    "dragover",
    (event) => (event.preventDefault(), document.body.classList.add("dropping")),
  );
  document.addEventListener("dragleave", () => document.body.classList.remove("dropping"));
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    document.body.classList.remove("dropping");
    openFile(event.dataTransfer?.files[0]);
  });
}

listen();
showOptions();
setRunning(false);
begin().then(write, (error) => complain(error.message)); // so that there is something to see at once
