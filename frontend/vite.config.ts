// Build, development proxy and tests. The built page must be self-contained: the server sends it under
// a content security policy that allows nothing from elsewhere.
import react from "@vitejs/plugin-react";
import type { BuildOptions } from "vite";
import { defineConfig } from "vitest/config";

const server = "http://127.0.0.1:8000";

const served = { target: "es2022", assetsInlineLimit: 0 };
// Once more as one script: `steersight replay --html` puts it into a page that opens from disk, where no script can
// load another.
const alone = {
	...served,
	outDir: "dist/alone",
	emptyOutDir: true,
	rolldownOptions: { output: { codeSplitting: false } },
};

// And as one module for notebooks: what anywidget loads (`backend/steersight/notebook/widget.py`).
const notebook = {
	target: "es2022",
	outDir: "dist/notebook",
	emptyOutDir: true,
	copyPublicDir: false,
	lib: { entry: "src/notebook/main.tsx", formats: ["es" as const], fileName: () => "widget.js" },
	// A library is left to others to be made small, unless this is said.
	rolldownOptions: { output: { codeSplitting: false, minify: true } },
};
const builds: Record<string, BuildOptions> = { alone, notebook };

export default defineConfig(({ mode }) => ({
	plugins: [react()],
	// A library's build leaves this to whoever uses it, and nobody does here.
	...(mode === "notebook" ? { define: { "process.env.NODE_ENV": JSON.stringify("production") } } : {}),
	// Relative, so that the built page works behind any path prefix.
	base: "./",
	build: builds[mode] ?? served,
	server: {
		proxy: {
			"/ws": { target: server, ws: true },
			"/api": server,
			"/healthz": server,
			"/readyz": server,
			"/metrics": server,
		},
	},
	test: { include: ["src/**/*.test.{ts,tsx}"], environment: "node" },
}));
