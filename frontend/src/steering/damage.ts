// Whether a reply is breaking, from its last words and its last distributions.
//
//     repetition = (words among the last 20 that occur earlier among those 20) / (those words)
//     entropy    = mean over the last 20 tokens of the entropy, in nats, of the distribution each was drawn from
//
//     broken     : repetition >= 0.65, or repetition >= 0.5 and entropy < 0.8
//     recovered  : repetition < 0.45, or repetition < 0.5 and entropy >= 0.8
//
// Between the two it stays what it was, so that a warning does not flicker. Words are compared case-folded; with
// fewer than 12 of them, or 12 entropies, nothing is said. The limits come from replies of the bundled model:
// those of the recipes that nobody steered stay under 0.4, longer ones reach 0.55 with an entropy of 1.5, and
// loops lie between 0.7 and 0.9 with an entropy of 0.3 to 1.2. What this cannot see: nonsense that does not
// repeat itself, and scripts that write no spaces between words. A poem with a refrain may look broken.

export const WINDOW = 20;
export const FEWEST = 12;
export const LIMIT = 0.65;
export const ELEVATED = 0.5;
export const RECOVERED = 0.45;
export const COLLAPSED_NATS = 0.8;

export interface Damage {
	/** 0 to 1; null while there are too few words. */
	repetition: number | null;
	/** Nats; null while too few are known. */
	entropy: number | null;
	broken: boolean;
}

/** Words of a text, case-folded, without the punctuation around them. */
export function words(text: string): string[] {
	return text.toLowerCase().match(/[\p{L}\p{N}\p{M}]+(?:['\u2019-][\p{L}\p{N}\p{M}]+)*/gu) ?? [];
}

/** Share of the last words of a text that occur earlier among them; null with too few words. */
export function repetition(text: string): number | null {
	const last = words(text).slice(-WINDOW);
	return last.length < FEWEST ? null : (last.length - new Set(last).size) / last.length;
}

/** Mean of the last entropies that are known; null with too few of them. */
export function meanEntropy(entropies: readonly (number | null)[]): number | null {
	const known = entropies.slice(-WINDOW).filter((one) => one !== null);
	return known.length < FEWEST ? null : known.reduce((sum, one) => sum + one, 0) / known.length;
}

/** `text` is the reply so far or at least its last 20 words; `entropies` those of its tokens, oldest first. */
export function damageOf(text: string, entropies: readonly (number | null)[], wasBroken = false): Damage {
	const repeated = repetition(text);
	const entropy = meanEntropy(entropies);
	const collapsed = entropy !== null && entropy < COLLAPSED_NATS;
	const broken = (now: number) => {
		if (now >= LIMIT || (now >= ELEVATED && collapsed)) return true;
		return wasBroken && (now >= ELEVATED || (now >= RECOVERED && collapsed));
	};
	return { repetition: repeated, entropy, broken: repeated !== null && broken(repeated) };
}
