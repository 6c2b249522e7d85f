// Build, development proxy and tests. The built page must be self-contained: the server sends it under
// a content security policy that allows nothing from elsewhere.
import react from "@vitejs/plugin-react";
import { defineConfig } from "vitest/config";

const server = "http://127.0.0.1:8000";

export default defineConfig({
	plugins: [react()],
	// Relative, so that the built page works behind any path prefix.
	base: "./",
	build: { target: "es2022", assetsInlineLimit: 0 },
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
});
