// Where a text is split, and no piece goes across.

import { LIMITS } from "./tables.js";

/** Whether a token may be several characters. @param {string} unit */
export const hasPieces = (unit) => unit === "word" || unit === "bpe";

const [LETTERS, MAX_RUN] = [LIMITS.letters, LIMITS.run];
const SPLIT = new RegExp(
  ` ?[${LETTERS}]{1,${MAX_RUN}}| ?[^ ${LETTERS}]{1,${MAX_RUN}}| {1,${MAX_RUN}}(?= )| `,
  "gu",
);

/**
 * The runs of a text, across which no piece goes: joined, they are the text.
 * @param {string} text
 * @returns {string[]}
 */
export const splitRuns = (text) => text.match(SPLIT) ?? [];
