// What chargen.js gives to others; `python -m tests.tools.web` makes it of this folder.

export { ArtifactError, ChargenError, OptionError, UnknownCharacterError } from "./errors.js";
export { load, Model, Score } from "./model.js";
export { TextState } from "./state.js";
export { TextStream } from "./stream.js";
