import { expect, test } from "vitest";
import { AGE_MS, ifOver, type Locks, live, newLife } from "./lives";

/** The locks of a browser, as far as lives need them. */
function browserLocks(): Locks & { end(life: string): void } {
	const held = new Set<string>();
	const request = async (name: string, ...rest: unknown[]) => {
		const act = rest.at(-1) as (lock: Lock | null) => Promise<void>;
		if (held.has(name)) return act(null);
		held.add(name);
		await act({ name, mode: "exclusive" });
		held.delete(name);
	};
	return {
		request: request as Locks["request"],
		end: (life) => void held.delete(`steersight.shelf.${life}`),
	};
}

async function isOver(locks: Locks | undefined, life: string, seen = 0, now = 0): Promise<boolean> {
	let over = false;
	await ifOver(locks, life, seen, now, async () => {
		over = true;
	});
	return over;
}

test("a life is over when its page holds its lock no more, however old it is", async () => {
	const locks = browserLocks();
	await live(locks, "a");
	await live(locks, "b");
	expect([await isOver(locks, "a", 0, 99 * AGE_MS), await isOver(locks, "b")]).toEqual([false, false]);
	locks.end("a");
	expect([await isOver(locks, "a"), await isOver(locks, "b")]).toEqual([true, false]);
});

test("without locks a life is over when nothing was heard of it for long", async () => {
	await live(undefined, "a");
	expect(await isOver(undefined, "a", 5, 5 + AGE_MS)).toBe(false);
	expect(await isOver(undefined, "a", 5, 6 + AGE_MS)).toBe(true);
});

test("a browser that gives no lock is said so", async () => {
	const request = () => Promise.reject(new DOMException("Not in this frame.", "SecurityError"));
	await expect(live({ request } as unknown as Locks, "a")).rejects.toThrow("Not in this frame.");
});

test("no two lives have one name", () => {
	expect(new Set(Array.from({ length: 100 }, newLife)).size).toBe(100);
});
