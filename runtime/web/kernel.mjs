// Writes the bytes of kernel.wat into src/engine.js; with --check it only says whether they are there.
import { readFileSync, writeFileSync } from "node:fs";
import wabt from "wabt";

const here = (name) => new URL(name, import.meta.url);
const parsed = (await wabt()).parseWat("kernel.wat", readFileSync(here("kernel.wat"), "utf8"), {
  simd: true,
});
const kernel = Buffer.from(parsed.toBinary({}).buffer).toString("base64");
const module = readFileSync(here("src/engine.js"), "utf8");
const written = module.replace(/^const KERNEL = ".*";$/m, `const KERNEL = "${kernel}";`);
if (!written.includes(kernel)) throw new Error("src/engine.js has no line for the kernel");
if (!process.argv.includes("--check")) writeFileSync(here("src/engine.js"), written);
else if (written !== module) throw new Error("src/engine.js has another kernel; run: node kernel.mjs");
