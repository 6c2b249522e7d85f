import type { Session } from "../session/session";
import type { RunState } from "../store/run";
import { useSignal } from "../ui/useSignal";

/** That a part of the map is missing because the engine had it in its cache, and how it can be had. */
export function FromCache({ session, run }: { session: Session; run: RunState }) {
	useSignal(run.changed);
	const { count } = run.cached;
	if (count === 0) return null;
	const filled = session.fillingOf(run);
	const tokens = count === 1 ? "1 token was" : `${count.toLocaleString("en")} tokens were`;
	return (
		<div className="from-cache" data-testid="from-cache">
			<span className="legend-dots" />
			<p role="status">
				{tokens} not computed for this reply: the engine had {count === 1 ? "it" : "them"} in its cache.
				{filled.kind === "possible" && filled.problem !== null && ` ${filled.problem}`}
			</p>
			{filled.kind !== "never" && (
				<button
					type="button"
					className="quiet small"
					data-testid="compute-cached"
					title="Read this prompt once more, without the cache, for its rows. The reply stays as it is."
					disabled={filled.kind === "under-way"}
					onClick={() => session.fill(run)}
				>
					{filled.kind === "under-way" ? "Computing…" : "Compute them"}
				</button>
			)}
		</div>
	);
}
