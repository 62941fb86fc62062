// SHA-256, also where the browser has none.

/**
 * SHA-256 of bytes, hexadecimal.
 * @param {Uint8Array} data
 */
export async function sha256(data) {
  // not there on pages that come over plain http from another machine
  const hash = globalThis.crypto?.subtle
    ? new Uint8Array(await crypto.subtle.digest("SHA-256", /** @type {BufferSource} */ (data)))
    : sha256Here(data);
  return Array.from(hash, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/**
 * SHA-256 (FIPS 180-4) without help.
 * @param {Uint8Array} data
 */
export function sha256Here(data) {
  /** @type {number[]} */
  const primes = [];
  for (let n = 2; primes.length < 64; n++) if (primes.every((prime) => n % prime)) primes.push(n);
  const fraction = (/** @type {number} */ x) => ((x - Math.floor(x)) * 2 ** 32) | 0;
  const constants = Int32Array.from(primes, (prime) => fraction(Math.cbrt(prime)));
  const hash = Int32Array.from(primes.slice(0, 8), (prime) => fraction(Math.sqrt(prime)));
  const tail = new Uint8Array(128);
  const whole = data.length - (data.length % 64);
  tail.set(data.subarray(whole));
  tail[data.length - whole] = 128;
  const end = data.length - whole > 55 ? 128 : 64;
  new DataView(tail.buffer).setBigUint64(end - 8, BigInt(data.length) * 8n);
  const schedule = new Int32Array(64);
  for (let at = 0; at < whole; at += 64) digestBlock(hash, data, at, schedule, constants);
  for (let at = 0; at < end; at += 64) digestBlock(hash, tail, at, schedule, constants);
  const bytes = new DataView(new ArrayBuffer(32));
  hash.forEach((word, place) => bytes.setInt32(4 * place, word));
  return new Uint8Array(bytes.buffer);
}

/** @type {(hash: Int32Array, data: Uint8Array, at: number, w: Int32Array, k: Int32Array) => void} */
function digestBlock(hash, data, at, w, k) {
  const turn = (/** @type {number} */ x, /** @type {number} */ n) => (x >>> n) | (x << (32 - n));
  for (let i = 0; i < 64; i++) {
    if (i < 16) {
      const j = at + 4 * i;
      w[i] = (data[j] << 24) | (data[j + 1] << 16) | (data[j + 2] << 8) | data[j + 3];
      continue;
    }
    const [x, y] = [w[i - 15], w[i - 2]];
    w[i] =
      w[i - 16] +
      w[i - 7] +
      (turn(x, 7) ^ turn(x, 18) ^ (x >>> 3)) +
      (turn(y, 17) ^ turn(y, 19) ^ (y >>> 10));
  }
  let [a, b, c, d, e, f, g, h] = hash;
  for (let i = 0; i < 64; i++) {
    const one = (h + (turn(e, 6) ^ turn(e, 11) ^ turn(e, 25)) + ((e & f) ^ (~e & g)) + k[i] + w[i]) | 0;
    const two = (turn(a, 2) ^ turn(a, 13) ^ turn(a, 22)) + ((a & b) ^ (a & c) ^ (b & c));
    [h, g, f, e, d, c, b, a] = [g, f, e, (d + one) | 0, c, b, a, (one + two) | 0];
  }
  [a, b, c, d, e, f, g, h].forEach((word, place) => (hash[place] += word));
}
