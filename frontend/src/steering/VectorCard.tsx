// A vector's card: what it is and how it was made, its file to take away, and, for this server's own ones, the
// way to be rid of it. Of a function: what it does and where it stands; it is whoever started the server who changes it.
import { useEffect, useState } from "react";
import type { VectorInfo } from "../protocol/types.gen";
import type { Session } from "../session/session";
import { Dialog } from "../ui/Dialog";
import { download } from "../ui/download";
import { ErrorBanner } from "../ui/ErrorBanner";
import type { VectorDetails } from "./api";
import { layersText } from "./Slider";
import { OPERATOR_WORDS } from "./setting";

const KINDS: Record<VectorInfo["kind"], string> = {
	direction: "Direction",
	feature: "SAE feature",
	function: "Function: code with which this server was started",
};

interface VectorCardProps {
	session: Session;
	vector: VectorInfo;
	onClose(): void;
}

export function VectorCard({ session, vector, onClose }: VectorCardProps) {
	const [details, setDetails] = useState<VectorDetails | null>(null);
	const [problem, setProblem] = useState<string | null>(null);
	const [loading, setLoading] = useState(false);
	const [sure, setSure] = useState(false);
	const [deleting, setDeleting] = useState(false);
	const { api } = session;
	const isFunction = vector.kind === "function";

	useEffect(() => {
		if (isFunction) return;
		let open = true;
		api.details(vector.id).then(
			(found) => open && setDetails(found),
			(error: Error) => open && setProblem(error.message),
		);
		return () => {
			open = false;
		};
	}, [api, vector.id, isFunction]);

	// A link could not say the token that the server may ask for.
	const fetchFile = async () => {
		setLoading(true);
		try {
			download(await api.file(vector.id), `${vector.id}.safetensors`);
		} catch (error) {
			setProblem((error as Error).message);
		}
		setLoading(false);
	};

	const remove = async () => {
		setDeleting(true);
		try {
			await api.remove(vector.id);
			onClose();
		} catch (error) {
			setProblem((error as Error).message);
			setDeleting(false);
			setSure(false);
		}
	};

	return (
		<Dialog title={vector.label} testid="vector-card" onClose={onClose}>
			{problem !== null && <ErrorBanner message={problem} />}
			{vector.description !== "" && (
				<p dir="auto" className={isFunction ? "docstring" : undefined}>
					{vector.description}
				</p>
			)}
			<dl className="card-facts">
				<dt>Id</dt>
				<dd>{vector.id}</dd>
				<dt>Kind</dt>
				<dd>{KINDS[vector.kind]}</dd>
				{vector.file && (
					<>
						<dt>Stands in</dt>
						<dd data-testid="function-file">{vector.file}</dd>
					</>
				)}
				<dt>Acts at</dt>
				<dd>{layersText(vector.layers)}</dd>
				{vector.adapter && (
					<>
						<dt>Belongs to</dt>
						<dd>the adapter {vector.adapter}</dd>
					</>
				)}
				{vector.operator !== null && (
					<>
						<dt>Own way</dt>
						<dd title={OPERATOR_WORDS[vector.operator].formula}>{OPERATOR_WORDS[vector.operator].label}</dd>
					</>
				)}
				<dt>Strengths</dt>
				<dd>
					{vector.range[0]} to {vector.range[1]}, plain to see at {vector.suggested}
				</dd>
				{details !== null && (
					<>
						<dt>File</dt>
						<dd>{bytes(details.file_bytes)}</dd>
					</>
				)}
			</dl>
			{details !== null && Object.keys(details.provenance).length > 0 && (
				<div>
					<h3>How it was made</h3>
					{/* biome-ignore lint/a11y/noNoninteractiveTabindex: a scrolled region must be reachable by keyboard */}
					<section className="provenance" tabIndex={0} aria-label="How it was made" data-testid="provenance">
						<dl className="card-facts">
							{facts(details.provenance).map(([name, text]) => (
								<div key={name} className="fact">
									<dt>{name}</dt>
									<dd dir="auto">{text}</dd>
								</div>
							))}
						</dl>
					</section>
				</div>
			)}
			<div className="dialog-foot">
				{!isFunction && (
					<button
						type="button"
						className="quiet bordered"
						data-testid="vector-download"
						disabled={loading}
						onClick={() => void fetchFile()}
					>
						Download the file
					</button>
				)}
				<span className="spring" />
				{vector.own && !sure && (
					<button
						type="button"
						className="quiet bordered"
						data-testid="vector-delete"
						onClick={() => setSure(true)}
					>
						Delete
					</button>
				)}
				{vector.own && sure && (
					<>
						<span role="status">It goes for everybody on this server.</span>
						<button
							type="button"
							className="danger"
							data-testid="vector-delete-sure"
							disabled={deleting}
							onClick={() => void remove()}
						>
							Delete <bdi>{vector.label}</bdi>
						</button>
						<button type="button" className="quiet bordered" onClick={() => setSure(false)}>
							Keep it
						</button>
					</>
				)}
			</div>
		</Dialog>
	);
}

/** Whatever a maker wrote down, as names and texts; a list of texts one per line. */
export function facts(provenance: Record<string, unknown>): [string, string][] {
	return Object.entries(provenance)
		.filter(([, value]) => value !== null && value !== "")
		.map(([name, value]) => [name.replaceAll("_", " "), text(value)]);
}

function text(value: unknown): string {
	if (typeof value === "string") return value;
	if (typeof value === "number") return String(Math.round(value * 1e6) / 1e6);
	if (Array.isArray(value) && value.every((one) => typeof one === "string")) return value.join("\n");
	return JSON.stringify(value);
}

function bytes(count: number): string {
	return count < 1024 * 1024 ? `${Math.ceil(count / 1024)} KiB` : `${(count / 1024 / 1024).toFixed(1)} MiB`;
}
