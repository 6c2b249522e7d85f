// The dialog in which the server's model is changed: what is on its machine, whether it fits, and, before anything
// happens, what it ends.
import { useEffect, useState } from "react";
import type { Session } from "../session/session";
import { Dialog } from "../ui/Dialog";
import { ErrorBanner } from "../ui/ErrorBanner";
import { endsText, type ModelHere, type ModelsHere, sizeText } from "./api";

type Step = { kind: "choose" } | { kind: "sure"; model: ModelHere } | { kind: "asking"; model: ModelHere };

export function ModelDialog({ session, onClose }: { session: Session; onClose(): void }) {
	const [here, setHere] = useState<ModelsHere | null>(null);
	const [step, setStep] = useState<Step>({ kind: "choose" });
	const [problem, setProblem] = useState<string | null>(null);

	useEffect(() => {
		let closed = false;
		session.models.here().then(
			(found) => !closed && setHere(found),
			(error: unknown) => !closed && setProblem(sentence(error)),
		);
		return () => {
			closed = true;
		};
	}, [session]);

	/** Asked anew: how many replies it would end may be another number by now. */
	const choose = async (model: ModelHere) => {
		setProblem(null);
		try {
			setHere(await session.models.here());
			setStep({ kind: "sure", model });
		} catch (error) {
			setProblem(sentence(error));
		}
	};
	const change = async (model: ModelHere) => {
		setProblem(null);
		setStep({ kind: "asking", model });
		try {
			await session.models.change(model.id);
			onClose();
		} catch (error) {
			setStep({ kind: "choose" });
			setProblem(sentence(error));
		}
	};

	return (
		<Dialog title="Change the model" testid="model-dialog" onClose={onClose}>
			{problem !== null && <ErrorBanner message={problem} />}
			{here === null && problem === null && (
				<p role="status" className="muted">
					Looking for models.
				</p>
			)}
			{here !== null && step.kind === "choose" && <Choice here={here} onChoose={(one) => void choose(one)} />}
			{here !== null && step.kind !== "choose" && (
				<Sure
					model={step.model}
					live={here.live}
					busy={step.kind === "asking"}
					onBack={() => setStep({ kind: "choose" })}
					onChange={() => void change(step.model)}
				/>
			)}
		</Dialog>
	);
}

function sentence(error: unknown): string {
	return error instanceof Error ? error.message : "The server did not answer.";
}

function Choice({ here, onChoose }: { here: ModelsHere; onChoose(model: ModelHere): void }) {
	return (
		<>
			{here.failed !== null && <p className="hint">The last change failed. {here.failed}</p>}
			<ul className="models" data-testid="models">
				{here.models.map((model) => (
					<li key={model.id} data-testid="model-here" data-model={model.id}>
						<div className="model-words">
							<strong dir="auto">{model.id}</strong>
							<span className="muted">{sizeText(model)}</span>
							{model.why !== null && <span className="muted">{model.why}</span>}
						</div>
						{model.id === here.served ? (
							<span className="muted">served now</span>
						) : (
							<button
								type="button"
								className="quiet bordered"
								disabled={!model.fits}
								aria-label={`Serve ${model.id}`}
								onClick={() => onChoose(model)}
							>
								{model.fits ? "Choose" : "Does not fit"}
							</button>
						)}
					</li>
				))}
			</ul>
			<p className="hint">
				These are on the server's machine. <code>steersight models</code> says there how to get others.
			</p>
		</>
	);
}

interface SureProps {
	model: ModelHere;
	live: number;
	busy: boolean;
	onBack(): void;
	onChange(): void;
}

function Sure({ model, live, busy, onBack, onChange }: SureProps) {
	return (
		<>
			<p data-testid="model-ends">
				Everybody on this server gets <bdi>{model.id}</bdi>. {endsText(live)} Loading takes from half a minute
				to some minutes; conversations stay, and sliders of vectors that the model does not have go.
			</p>
			<div className="dialog-foot">
				<span className="spring" />
				<button type="button" className="quiet bordered" disabled={busy} onClick={onBack}>
					Back
				</button>
				<button
					type="button"
					className="primary"
					data-testid="model-change"
					// biome-ignore lint/a11y/noAutofocus: the button that was pressed before is gone
					autoFocus
					disabled={busy}
					onClick={onChange}
				>
					Change the model
				</button>
			</div>
		</>
	);
}
