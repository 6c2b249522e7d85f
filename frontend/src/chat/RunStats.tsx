// Speed of one reply: measured by the page while it is written, by the server once it has finished.
import type { Run } from "../store/run";
import { useSignal } from "../ui/useSignal";

export function RunStats({ run }: { run: Run }) {
	useSignal(run.changed);
	const first = run.firstTokenMs();
	const speed = run.tokensPerSecond();
	const reply = run.finished?.usage.reply_tokens ?? run.tokens.ids.length;
	const prompt = run.finished?.usage.prompt_tokens ?? run.tokens.promptLength;
	return (
		<>
			<dl className="run-stats">
				<div title="Time to first token">
					<dt>first token</dt>
					<dd data-testid="ttft">{first === null ? "\u2013" : milliseconds(first)}</dd>
				</div>
				<div>
					<dt>speed</dt>
					<dd data-testid="tokens-per-second">
						{speed === null ? "\u2013" : `${speed.toFixed(1)} tokens/s`}
					</dd>
				</div>
				<div>
					<dt>tokens</dt>
					<dd>
						{prompt} prompt, {reply} reply
					</dd>
				</div>
			</dl>
			<p className="sr-only" aria-live="polite">
				{run.finished !== null && `Reply finished, ${reply} tokens.`}
			</p>
		</>
	);
}

function milliseconds(ms: number): string {
	return ms < 1000 ? `${Math.round(ms)} ms` : `${(ms / 1000).toFixed(2)} s`;
}
