// Long work in slices. A recording of a long conversation takes a second to unpack or to pack; the page's content
// security policy allows no worker that is made of text, and a page opened from disk has no other, so the work is
// done on the page's own thread, and gives way before anybody notices.

/** Shorter than a frame. */
const SLICE_MS = 10;

export class Breath {
	#since = performance.now();

	/** Go on at once while the slice lasts, and in a task of its own when it is over. */
	async take(): Promise<void> {
		if (performance.now() - this.#since < SLICE_MS) return;
		await nextTask();
		this.#since = performance.now();
	}
}

/** A message and not a timer: browsers make timers that follow one another wait for 4 ms each. */
export function nextTask(): Promise<void> {
	return new Promise((resolve) => {
		const { port1, port2 } = new MessageChannel();
		port1.onmessage = () => {
			port1.close();
			resolve();
		};
		port2.postMessage(null);
	});
}
