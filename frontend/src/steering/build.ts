// The vector that is being built for this page, outside the dialog that shows it: the dialog can be closed while
// the build goes on, and a reloaded page finds it again by the job's name in the tab's own storage.

import type { Timers } from "../connection/clock";
import { ApiError } from "../connection/http";
import { type FrameBatch, pageBatch, Signal } from "../store/signal";
import type { BuildRequest, BuildState, VectorApi } from "./api";

export const POLL_MS = 500;
/** Polls that may fail in a row before the build counts as lost: the network may be away for a while. */
export const MOST_FAILURES = 20;
const KEY = "steersight.build.v1";

export type Build =
	| { kind: "none" }
	/** Asked for, not yet admitted. */
	| { kind: "asked"; label: string }
	| { kind: "running"; label: string; job: string; stage: string; progress: number }
	| { kind: "done"; label: string; result: NonNullable<BuildState["result"]> }
	| { kind: "failed"; label: string; message: string }
	| { kind: "cancelled"; label: string };

export class VectorBuild {
	readonly changed: Signal;
	#now: Build = { kind: "none" };
	#timer: unknown = null;
	#failures = 0;
	/** Answers to an earlier build are not about this one. */
	#life = 0;

	constructor(
		private readonly api: VectorApi,
		private readonly clock: Timers,
		private readonly storage: Pick<Storage, "getItem" | "setItem" | "removeItem"> | null,
		batch: FrameBatch = pageBatch,
	) {
		this.changed = new Signal(batch);
		const kept = this.#kept();
		if (kept !== null) {
			this.#become({ kind: "running", ...kept, stage: "Looking for the build.", progress: 0 });
			void this.#poll(this.#life, kept.job);
		}
	}

	get now(): Build {
		return this.#now;
	}

	get busy(): boolean {
		return this.#now.kind === "asked" || this.#now.kind === "running";
	}

	async start(request: BuildRequest): Promise<void> {
		if (this.busy) return;
		const life = this.#begin();
		const { label } = request;
		this.#become({ kind: "asked", label });
		try {
			const job = await this.api.build(request);
			if (life !== this.#life) return;
			this.#keep({ job, label });
			this.#become({ kind: "running", label, job, stage: "Starting.", progress: 0 });
			this.#wait(life, job);
		} catch (error) {
			if (life === this.#life) this.#become({ kind: "failed", label, message: messageOf(error) });
		}
	}

	/** Ask the server to stop; the next poll says that it has. */
	async cancel(): Promise<void> {
		const now = this.#now;
		if (now.kind !== "running") return;
		const life = this.#life;
		this.#become({ ...now, stage: "Cancelling." });
		try {
			await this.api.cancel(now.job);
		} catch (error) {
			// A build that is gone is as cancelled as it can be.
			if (life === this.#life && !(error instanceof ApiError && error.status === 404)) {
				this.#become({ ...now, stage: messageOf(error) });
			}
		}
	}

	/** Put away what a build that is over came to. */
	forget(): void {
		if (this.busy) return;
		this.#begin();
		this.#become({ kind: "none" });
	}

	#begin(): number {
		this.#life += 1;
		this.#failures = 0;
		if (this.#timer !== null) this.clock.clearTimeout(this.#timer);
		this.#timer = null;
		return this.#life;
	}

	#wait(life: number, job: string): void {
		this.#timer = this.clock.setTimeout(() => void this.#poll(life, job), POLL_MS);
	}

	async #poll(life: number, job: string): Promise<void> {
		this.#timer = null;
		try {
			const state = await this.api.building(job);
			if (life !== this.#life) return;
			this.#failures = 0;
			this.#take(state);
		} catch (error) {
			if (life !== this.#life) return;
			this.#failures += 1;
			const refused = error instanceof ApiError && error.status >= 400 && error.status < 500;
			if (refused || this.#failures >= MOST_FAILURES) {
				const { now } = this;
				this.#keep(null);
				// The server that built it was started anew, or forgot it.
				this.#become({
					kind: "failed",
					label: now.kind === "none" ? "" : now.label,
					message: messageOf(error),
				});
			}
		}
		if (this.#now.kind === "running") this.#wait(life, job);
	}

	#take(state: BuildState): void {
		const now = this.#now;
		if (now.kind !== "running") return;
		const { label } = now;
		if (state.state === "running") {
			this.#become({ ...now, stage: state.stage, progress: state.progress });
			return;
		}
		this.#keep(null);
		if (state.state === "done" && state.result !== null) {
			this.#become({ kind: "done", label, result: state.result });
		} else if (state.state === "cancelled") {
			this.#become({ kind: "cancelled", label });
		} else {
			this.#become({ kind: "failed", label, message: state.error ?? "The build failed." });
		}
	}

	#become(build: Build): void {
		this.#now = build;
		this.changed.changed();
	}

	#keep(build: { job: string; label: string } | null): void {
		try {
			if (build === null) this.storage?.removeItem(KEY);
			else this.storage?.setItem(KEY, JSON.stringify(build));
		} catch {
			// Without storage a reload loses sight of the build; its vector still comes.
		}
	}

	#kept(): { job: string; label: string } | null {
		try {
			const found: unknown = JSON.parse(this.storage?.getItem(KEY) ?? "null");
			if (typeof found !== "object" || found === null) return null;
			const { job, label } = found as Record<string, unknown>;
			return typeof job === "string" && typeof label === "string" ? { job, label } : null;
		} catch {
			return null;
		}
	}
}

function messageOf(error: unknown): string {
	return error instanceof Error ? error.message : "Something went wrong.";
}
