// Which pages that left numbers on the shelf are over. Tabs share the store, and none may delete what another still
// reads: each life of a page holds a lock of the browser's under its own name, which the browser gives back when the
// page ends, however it ends. Where there are no locks (a page that came over plain http), age tells.

/** The part of `navigator.locks` that is needed. */
export type Locks = Pick<LockManager, "request">;

/** Far longer than a laptop sleeps over a holiday weekend with a tab open. */
export const AGE_MS = 14 * 24 * 3600 * 1000;

const lockOf = (life: string) => `steersight.shelf.${life}`;

/** Other than `crypto.randomUUID`, this is there without https too. */
export function newLife(): string {
	return [...crypto.getRandomValues(new Uint32Array(4))].map((part) => part.toString(36)).join("-");
}

/** Be alive under this name for as long as the page lasts. Done when others can see it. */
export function live(locks: Locks | undefined, life: string): Promise<void> {
	if (locks === undefined) return Promise.resolve();
	return new Promise((done, refuse) => {
		locks
			.request(lockOf(life), () => {
				done();
				return new Promise<never>(() => {});
			})
			.catch(refuse);
	});
}

/** Do something about a life, last heard of at `seen` (ms since 1970), if it is over. */
export async function ifOver(
	locks: Locks | undefined,
	life: string,
	seen: number,
	now: number,
	act: () => Promise<void>,
): Promise<void> {
	if (locks === undefined) {
		if (now - seen > AGE_MS) await act();
		return;
	}
	await locks.request(lockOf(life), { ifAvailable: true }, async (lock) => {
		if (lock !== null) await act();
	});
}
