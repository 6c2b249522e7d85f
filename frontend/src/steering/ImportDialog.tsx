// The dialog that brings a vector from a file: first a try, which says what the file holds and whether it fits,
// then the same for good.
import { type DragEvent, Fragment, useId, useState } from "react";
import type { Session } from "../session/session";
import { Dialog } from "../ui/Dialog";
import { ErrorBanner } from "../ui/ErrorBanner";
import { type ImportReport, LARGEST_FILE } from "./api";
import { layersText } from "./Slider";

type Step =
	| { kind: "choose" }
	| { kind: "reading"; file: File }
	| { kind: "tried"; file: File; report: ImportReport }
	| { kind: "adding"; file: File; report: ImportReport }
	| { kind: "added"; report: ImportReport };

export function ImportDialog({ session, onClose }: { session: Session; onClose(): void }) {
	const [step, setStep] = useState<Step>({ kind: "choose" });
	const [label, setLabel] = useState("");
	const [problem, setProblem] = useState<string | null>(null);
	const [over, setOver] = useState(false);
	const name = useId();

	const failed = (error: unknown) =>
		setProblem(error instanceof Error ? error.message : "It could not be read.");
	const look = async (file: File) => {
		setProblem(null);
		if (file.size > LARGEST_FILE) {
			setStep({ kind: "choose" });
			setProblem(`${file.name} is larger than ${LARGEST_FILE / 2 ** 20} MiB. Import it on the command line.`);
			return;
		}
		setStep({ kind: "reading", file });
		try {
			setStep({ kind: "tried", file, report: await session.api.read(file, label.trim(), { trial: true }) });
		} catch (error) {
			setStep({ kind: "choose" });
			failed(error);
		}
	};
	const add = async (file: File, report: ImportReport) => {
		setProblem(null);
		setStep({ kind: "adding", file, report });
		try {
			setStep({ kind: "added", report: await session.api.read(file, label.trim(), { trial: false }) });
		} catch (error) {
			setStep({ kind: "tried", file, report });
			failed(error);
		}
	};
	const onDrop = (event: DragEvent) => {
		event.preventDefault();
		setOver(false);
		const [file] = event.dataTransfer.files;
		if (file !== undefined) void look(file);
	};
	const busy = step.kind === "reading" || step.kind === "adding";
	const file = "file" in step ? step.file : null;

	return (
		<Dialog title="Import" testid="import-dialog" onClose={onClose}>
			{problem !== null && <ErrorBanner message={problem} />}
			{step.kind !== "added" && (
				<>
					<div className="field">
						<label htmlFor={name}>Name</label>
						<input
							id={name}
							data-testid="import-label"
							dir="auto"
							value={label}
							maxLength={64}
							placeholder="as the file says"
							disabled={busy}
							onChange={(event) => setLabel(event.target.value)}
						/>
					</div>
					{/* biome-ignore lint/a11y/noStaticElementInteractions: dropping is a second way; the button inside is the first */}
					<div
						className={over ? "drop over" : "drop"}
						onDragOver={(event) => {
							event.preventDefault();
							setOver(true);
						}}
						onDragLeave={() => setOver(false)}
						onDrop={onDrop}
					>
						<label className="file-button">
							<input
								type="file"
								className="sr-only"
								data-testid="import-file"
								disabled={busy}
								onChange={(event) => {
									const [chosen] = event.target.files ?? [];
									// The same file may be chosen again after it was changed.
									event.target.value = "";
									if (chosen !== undefined) void look(chosen);
								}}
							/>
							<span>{file === null ? "Choose a file" : "Choose another file"}</span>
						</label>
						<span className="muted">{file === null ? "or drop one here" : <bdi>{file.name}</bdi>}</span>
					</div>
					{file === null && (
						<p className="hint">
							Steersight and plain safetensors, control vectors of repeng and llama.cpp (GGUF), vectors as
							JSON. Nothing in a file is ever executed.
						</p>
					)}
				</>
			)}
			{step.kind === "reading" && (
				<p role="status" className="muted">
					Reading <bdi>{step.file.name}</bdi>.
				</p>
			)}
			{"report" in step && <Report report={step.report} />}
			<div className="dialog-foot">
				{step.kind === "added" ? (
					<p role="status" data-testid="import-added">
						{step.report.vectors.length === 1 ? "The slider is" : `${step.report.vectors.length} sliders are`}{" "}
						in the Steering panel.
					</p>
				) : (
					<span className="spring" />
				)}
				<button type="button" className="quiet bordered" onClick={onClose}>
					Close
				</button>
				{(step.kind === "tried" || step.kind === "adding") && (
					<button
						type="button"
						className="primary"
						data-testid="import-add"
						disabled={busy || step.report.vectors.length === 0}
						onClick={() => void add(step.file, step.report)}
					>
						Add
					</button>
				)}
			</div>
		</Dialog>
	);
}

function Report({ report }: { report: ImportReport }) {
	return (
		<section className="report" data-testid="import-report" aria-label="What the file holds">
			<h3>{report.format}</h3>
			<ul>
				{report.found.map((sentence) => (
					<li key={sentence}>{sentence}</li>
				))}
			</ul>
			{report.problems.length > 0 && (
				<ul className="problems" data-testid="import-problems">
					{report.problems.map((sentence) => (
						<li key={sentence}>{sentence}</li>
					))}
				</ul>
			)}
			{report.vectors.length > 0 && (
				<p data-testid="import-vectors">
					Fits this model:{" "}
					{report.vectors.map((one, index) => (
						<Fragment key={one.id}>
							{index > 0 && ", "}
							<bdi>{one.label}</bdi> ({layersText(one.layers)})
						</Fragment>
					))}
					.
				</p>
			)}
		</section>
	);
}
