// All that reads, plays and writes recordings, in a chunk of its own: most visits to the page need none of it.
export { pageWith } from "./html";
export { playTurns } from "./play";
export { readRecording } from "./read";
export { conversationBytes, fileName, SUFFIX, shownBytes } from "./save";
export { READ_ONLY, recordingTransport } from "./source";
