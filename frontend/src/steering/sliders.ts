// Where the sliders stand: a strength and a setting per vector, within what the server takes. A strength is what the
// person wishes; whether it has been sent or is in force is not known here.
import type { Limits } from "../protocol/types.gen";
import type { Steered } from "../store/run";
import { OWN_WAY, type Setting, type Settings, type Strengths, toWire } from "./setting";

export interface Stand {
	strength: number;
	setting: Setting;
}

export class Sliders {
	/** What the server takes. */
	limits: Pick<Limits, "max_vectors" | "max_strength"> = {
		max_vectors: Number.POSITIVE_INFINITY,
		max_strength: Number.POSITIVE_INFINITY,
	};
	#strengths = new Map<string, number>();
	#settings = new Map<string, Setting>();

	/** Vectors whose slider was moved at some time. */
	get moved(): string[] {
		return [...this.#strengths.keys()];
	}

	get(id: string): number {
		return this.#strengths.get(id) ?? 0;
	}

	setting(id: string): Setting {
		return this.#settings.get(id) ?? OWN_WAY;
	}

	/** Only what differs from 0 travels: a vector that is not named has strength 0. */
	strengths(): Strengths {
		return Object.fromEntries([...this.#strengths].filter(([, strength]) => strength !== 0));
	}

	/** Strengths, and how those vectors act that do not act in their own way. */
	steered(): Steered {
		const strengths = this.strengths();
		const settings: Settings = {};
		for (const id of Object.keys(strengths)) {
			const setting = toWire(this.setting(id));
			if (setting !== null) settings[id] = setting;
		}
		return { strengths, settings };
	}

	/** Why one more vector cannot act, as a sentence, or null when it can. */
	roomProblem(id: string, strength: number): string | null {
		const { max_vectors } = this.limits;
		if (strength === 0 || this.get(id) !== 0) return null;
		if (Object.keys(this.strengths()).length < max_vectors) return null;
		const vectors = max_vectors === 1 ? "1 vector" : `${max_vectors} vectors`;
		return `This server steers with at most ${vectors} at once. Set another slider back to 0 first.`;
	}

	/** Move a slider, at most as far as the server takes. False where it stood there already. */
	put(id: string, setting: Setting, strength: number): boolean {
		const { max_strength } = this.limits;
		const within = Math.max(-max_strength, Math.min(max_strength, strength));
		const before = JSON.stringify([this.setting(id), this.get(id)]);
		this.#settings.set(id, setting);
		this.#strengths.set(id, within);
		return before !== JSON.stringify([setting, within]);
	}

	/** Take over what the server says of a vector. False where it says what stands here. */
	adopt(id: string, strength: number, setting: Setting): boolean {
		// At 0 nothing acts, however it would.
		const acts = strength === 0 ? this.setting(id) : setting;
		if (strength === this.get(id) && JSON.stringify(acts) === JSON.stringify(this.setting(id))) return false;
		this.#strengths.set(id, strength);
		this.#settings.set(id, acts);
		return true;
	}

	/** Put every slider to 0. Returns the vectors that were not there. */
	reset(): string[] {
		const moved = Object.keys(this.strengths());
		for (const id of moved) this.#strengths.set(id, 0);
		return moved;
	}

	/** How one slider stands. */
	stand(id: string): Stand {
		return { strength: this.get(id), setting: this.setting(id) };
	}

	/** Forget vectors that the server does not know: a start that names one is refused. */
	keepOnly(ids: ReadonlySet<string>): void {
		for (const known of [this.#strengths, this.#settings]) {
			for (const id of known.keys()) if (!ids.has(id)) known.delete(id);
		}
	}
}
