// The dialog that makes a slider: what it should be more of and less of, how the build goes, what it found. What
// was typed lives outside, so that closing the dialog loses nothing.
import { type FormEvent, useId } from "react";
import type { Session } from "../session/session";
import { Dialog } from "../ui/Dialog";
import { ErrorBanner } from "../ui/ErrorBanner";
import { useSignal } from "../ui/useSignal";
import { BuildPlots } from "./BuildPlots";
import { type Draft, EMPTY, requestOf } from "./draft";

interface NewSliderProps {
	session: Session;
	draft: Draft;
	/** The LoRA adapter that the settings name; null is the base model. */
	adapter: string | null;
	onDraft(draft: Draft): void;
	onClose(): void;
}

export function NewSlider({ session, draft, adapter, onDraft, onClose }: NewSliderProps) {
	const { build } = session;
	useSignal(build.changed);
	const { now } = build;
	return (
		<Dialog title="New slider" testid="new-slider-dialog" onClose={onClose}>
			{now.kind === "asked" || now.kind === "running" ? (
				<Progress session={session} onClose={onClose} />
			) : now.kind === "done" ? (
				<Found session={session} onClose={onClose} onAgain={() => onDraft(EMPTY)} />
			) : (
				<Form session={session} draft={draft} adapter={adapter} onDraft={onDraft} />
			)}
		</Dialog>
	);
}

function Form({ session, draft, adapter, onDraft }: Omit<NewSliderProps, "onClose">) {
	useSignal(session.changed);
	const { build } = session;
	const [name, more, less] = [useId(), useId(), useId()];
	const request = requestOf(draft, adapter);
	const ready = session.server.engine?.state === "ready";
	const examples = draft.from === "examples";
	const side = draft[draft.from];
	const put = (changes: Partial<Draft["prompts"]>) =>
		onDraft({ ...draft, [draft.from]: { ...side, ...changes } });
	const submit = (event: FormEvent) => {
		event.preventDefault();
		if (request !== null && ready) void build.start(request);
	};
	const { now } = build;
	return (
		<form className="new-slider" onSubmit={submit}>
			{now.kind === "failed" && <ErrorBanner message={now.message} />}
			{now.kind === "cancelled" && (
				<p className="muted" role="status">
					The build was cancelled.
				</p>
			)}
			<div className="field">
				<label htmlFor={name}>Name</label>
				<input
					id={name}
					data-testid="new-slider-name"
					dir="auto"
					value={draft.label}
					maxLength={64}
					placeholder="Calm"
					onChange={(event) => onDraft({ ...draft, label: event.target.value })}
				/>
			</div>
			<fieldset className="choice">
				<legend>Made from</legend>
				{(["prompts", "examples"] as const).map((from) => (
					<label key={from}>
						<input
							type="radio"
							name="from"
							data-testid={`new-slider-${from}`}
							checked={draft.from === from}
							onChange={() => onDraft({ ...draft, from })}
						/>
						{from === "prompts" ? "Two system prompts" : "Example texts"}
					</label>
				))}
			</fieldset>
			<div className="field">
				<label htmlFor={more}>More of</label>
				<textarea
					id={more}
					rows={examples ? 5 : 2}
					data-testid="new-slider-more"
					dir="auto"
					value={side.positive}
					placeholder={
						examples ? "One text per line" : "You are calm. You answer slowly, gently and with patience."
					}
					onChange={(event) => put({ positive: event.target.value })}
				/>
			</div>
			<div className="field">
				<label htmlFor={less}>Less of</label>
				<textarea
					id={less}
					rows={examples ? 5 : 2}
					data-testid="new-slider-less"
					dir="auto"
					value={side.negative}
					placeholder={examples ? "One text per line" : "You are upset. You answer in haste, sharp and loud."}
					onChange={(event) => put({ negative: event.target.value })}
				/>
			</div>
			<div className="dialog-foot">
				<p className="hint">
					{adapter !== null && (
						<>
							It is made under the adapter <bdi>{adapter}</bdi>, and acts on replies with that adapter only.{" "}
						</>
					)}
					{examples
						? "The model reads both lists; the slider is the difference of what it thinks over them."
						: "The model answers some questions as each of the two; the slider is the difference."}
				</p>
				<button
					type="submit"
					className="primary"
					data-testid="new-slider-go"
					disabled={request === null || !ready}
					title={ready ? undefined : "The engine is not ready."}
				>
					Make it
				</button>
			</div>
		</form>
	);
}

function Progress({ session, onClose }: { session: Session; onClose(): void }) {
	const { build } = session;
	const { now } = build;
	const running = now.kind === "running" ? now : null;
	return (
		<div className="building" data-testid="building">
			<p role="status" data-testid="build-stage">
				{running?.stage ?? "Asking the server."}
			</p>
			<progress value={running?.progress ?? 0} max={1} aria-label="Building the slider" />
			<div className="dialog-foot">
				<p className="hint">You can close this and go on chatting; the Steering panel shows how it goes.</p>
				<button type="button" className="quiet bordered" onClick={onClose}>
					Close
				</button>
				<button
					type="button"
					className="quiet bordered"
					data-testid="build-cancel"
					disabled={running === null}
					onClick={() => void build.cancel()}
				>
					Cancel the build
				</button>
			</div>
		</div>
	);
}

function Found(props: { session: Session; onClose(): void; onAgain(): void }) {
	const { session, onClose, onAgain } = props;
	const { build, steering } = session;
	if (build.now.kind !== "done") return null;
	const { result } = build.now;
	const { vector, suggested } = result;
	const end = () => {
		build.forget();
		onAgain();
	};
	return (
		<div className="found" data-testid="build-result">
			<p role="status">
				<b>
					<bdi>{vector.label}</bdi>
				</b>{" "}
				is ready: layer {result.layer}, strengths {result.range[0]} to {result.range[1]}.
			</p>
			<BuildPlots result={result} />
			<div className="dialog-foot">
				<span className="spring" />
				<button type="button" className="quiet bordered" data-testid="build-another" onClick={end}>
					Make another
				</button>
				<button
					type="button"
					className="primary"
					data-testid="build-use"
					onClick={() => {
						steering.set(vector.id, suggested);
						onClose();
						end();
					}}
				>
					Use it at {suggested}
				</button>
			</div>
		</div>
	);
}
