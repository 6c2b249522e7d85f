// Makes src/recording/golden/page-1.steersight.npz: the test's recording as this version of the page writes it. It is
// made once for each version of the format and then stays as it is: whatever comes later must read it, and the Python
// tests read it too. Run by hand: `npm run golden`.
import { mkdirSync, writeFileSync } from "node:fs";
import { runnerImport } from "vite";

const load = async (path) => (await runnerImport(new URL(`../src/${path}`, import.meta.url).pathname)).module;
const { testRecording } = await load("testing/recording.ts");
const { writeRecording } = await load("recording/write.ts");
const file = new URL("../src/recording/golden/page-1.steersight.npz", import.meta.url);
mkdirSync(new URL(".", file), { recursive: true });
writeFileSync(file, await writeRecording(testRecording()));
