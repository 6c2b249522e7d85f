// Builds the benchmark's page as the real one is built. `backend/bench/frames.py` serves it and drives it.
import { fileURLToPath } from "node:url";
import react from "@vitejs/plugin-react";
import { defineConfig } from "vite";

export default defineConfig({
	plugins: [react()],
	root: fileURLToPath(new URL(".", import.meta.url)),
	base: "./",
	build: { target: "es2022", outDir: "../../artifacts/bench-page", emptyOutDir: true },
});
