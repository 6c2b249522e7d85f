// Says that the page shows a recording, and which, and leads back. Everything in it comes from a file.
import { useSignal } from "../ui/useSignal";
import type { Playback, Replay } from "./playback";

export function RecordingBanner({ playback, replay }: { playback: Playback; replay: Replay }) {
	useSignal(replay.session.changed);
	const { meta } = replay;
	const models = [...new Set(meta.runs.map(({ model }) => model?.id).filter((id) => id !== undefined))];
	const when = dateText(meta.made_at);
	return (
		<section className="recording-banner" data-testid="recording-banner" aria-label="Recording">
			<strong>Recording</strong>
			{meta.title !== "" && (
				<span className="recording-title" data-testid="recording-title" title={meta.title} dir="auto">
					{meta.title}
				</span>
			)}
			<span className="recording-facts">
				{models.length > 0 && (
					<span data-testid="recording-model">
						<bdi>{models.join(", ")}</bdi>
					</span>
				)}
				{when !== "" && <time dateTime={meta.made_at}>{when}</time>}
			</span>
			<span className="spring" />
			{playback.live !== null && (
				<button
					type="button"
					className="quiet bordered"
					data-testid="back-to-live"
					onClick={() => playback.close()}
				>
					Back to the live page
				</button>
			)}
		</section>
	);
}

/** As the browser's place writes it; "" where a file's date is none. */
export function dateText(made: string): string {
	const date = new Date(made);
	return Number.isNaN(date.getTime())
		? ""
		: date.toLocaleString(undefined, { dateStyle: "medium", timeStyle: "short" });
}
