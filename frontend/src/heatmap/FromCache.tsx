import type { Session } from "../session/session";
import type { Strip } from "../store/strip";
import { useSignal } from "../ui/useSignal";

/**
 * What of the map was not computed for this reply, and how it can be had: tokens that the engine had in its cache, and the
 * turns in front, which are shown as they were written.
 */
export function FromCache({ session, strip }: { session: Session; strip: Strip }) {
	const { run } = strip;
	useSignal(run.changed);
	const { unread } = strip;
	const earlier = strip.segments.length > 0;
	if (unread === 0 && !earlier && !run.reread) return null;
	const filled = session.fillingOf(run);
	const tokens = unread === 1 ? "1 token was" : `${unread.toLocaleString("en")} tokens were`;
	const missing = `${tokens} not computed for this reply: ${unread === 1 ? "it" : "they"} had been read before.`;
	const words = run.reread
		? "The turns before are shown as they were read again for this reply."
		: unread > 0
			? missing
			: "The turns before are shown as they were when they were written.";
	const problem = filled.kind === "possible" ? filled.problem : null;
	const button = (id: string, title: string, label: string, act: () => void) => (
		<button
			type="button"
			className="quiet small"
			data-testid={id}
			title={title}
			disabled={filled.kind === "under-way"}
			onClick={act}
		>
			{filled.kind === "under-way" ? "Computing\u2026" : label}
		</button>
	);
	return (
		<div
			className={unread > 0 ? "from-cache" : "from-cache as-written"}
			data-testid={unread > 0 ? "from-cache" : "as-written"}
		>
			{unread > 0 && <span className="legend-dots" />}
			<p role="status">
				{words}
				{problem !== null && ` ${problem}`}
			</p>
			{unread > 0 &&
				filled.kind !== "never" &&
				button(
					"compute-cached",
					"Read this prompt once more, without the cache, for its rows. The reply stays as it is.",
					"Compute them",
					() => session.fill(run),
				)}
			{unread === 0 &&
				(run.reread
					? button(
							"as-written-again",
							"Show them as they were when they were written",
							"Show them as written",
							() => session.reread(run, false),
						)
					: (filled.kind !== "never" || run.cached.none) &&
						button(
							"reread",
							"Show them as this reply's prompt: read again, under the sliders that were set when it began",
							"Show them as read for this reply",
							() => session.reread(run, true),
						))}
		</div>
	);
}
