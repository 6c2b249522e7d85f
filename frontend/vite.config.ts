// Build, development proxy and tests. The built page must be self-contained: the server sends it under
// a content security policy that allows nothing from elsewhere.
import react from "@vitejs/plugin-react";
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

export default defineConfig(({ mode }) => ({
	plugins: [react()],
	// Relative, so that the built page works behind any path prefix.
	base: "./",
	build: mode === "alone" ? alone : served,
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
