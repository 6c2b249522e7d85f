// The edits that there are: code from notebooks that a reply may have. Each with a switch, what has come of it, and the
// way to be rid of it.
import { useState } from "react";
import type { EditInfo } from "../protocol/types.gen";
import type { Session } from "../session/session";
import { ErrorBanner } from "../ui/ErrorBanner";

export function EditList({ session }: { session: Session }) {
	const { edits } = session;
	if (edits.all.length === 0) return null;
	const { live } = session;
	return (
		<section className="edits" aria-label="Edits" data-testid="edits">
			<h3>
				Edits <span className="muted">code from a notebook; a switch acts on the next reply</span>
			</h3>
			<ul>
				{edits.all.map((edit) => (
					<li key={edit.id} data-testid="edit" data-name={edit.name}>
						<Edit session={session} edit={edit} acting={live?.edits.includes(edit.name) ?? null} />
					</li>
				))}
			</ul>
		</section>
	);
}

interface EditProps {
	session: Session;
	edit: EditInfo;
	/** Whether it acts in the reply that is being written; null where none is. */
	acting: boolean | null;
}

function Edit({ session, edit, acting }: EditProps) {
	const [sure, setSure] = useState(false);
	const [removing, setRemoving] = useState(false);
	const [problem, setProblem] = useState<string | null>(null);
	const on = session.edits.isOn(edit.name);
	const remove = async () => {
		setRemoving(true);
		try {
			await session.edits.remove(edit);
		} catch (error) {
			setProblem((error as Error).message);
			setSure(false);
		}
		setRemoving(false);
	};
	return (
		<>
			<div className="edit-line">
				<label className="edit-switch">
					<input
						type="checkbox"
						role="switch"
						aria-checked={on}
						data-testid="edit-switch"
						checked={on}
						onChange={(event) => session.edits.turn(edit.name, event.target.checked)}
					/>
					<bdi>{edit.name}</bdi>
				</label>
				<span className="spring" />
				<span className="muted" data-testid="edit-status">
					{statusOf(on, acting, edit.runs)}
				</span>
				{!sure && (
					<button
						type="button"
						className="quiet small"
						data-testid="edit-remove"
						aria-label={`Remove ${edit.name}`}
						onClick={() => setSure(true)}
					>
						Remove
					</button>
				)}
			</div>
			{sure && (
				<div className="edit-line">
					<span role="status">It goes for everybody on this server. Replies under way keep it.</span>
					<span className="spring" />
					<button
						type="button"
						className="danger small"
						data-testid="edit-remove-sure"
						disabled={removing}
						onClick={() => void remove()}
					>
						Remove <bdi>{edit.name}</bdi>
					</button>
					<button type="button" className="quiet small bordered" onClick={() => setSure(false)}>
						Keep it
					</button>
				</div>
			)}
			{edit.error !== null && (
				<p className="edit-error" data-testid="edit-error">
					It failed last with <bdi>{edit.error}</bdi>
				</p>
			)}
			{problem !== null && <ErrorBanner message={problem} />}
		</>
	);
}

function statusOf(on: boolean, acting: boolean | null, runs: number): string {
	if (acting === true) return on ? "acts in this reply" : "acts to the end of this reply";
	if (on) return "from the next reply on";
	return runs === 0 ? "not used yet" : runs === 1 ? "used once" : `used ${runs} times`;
}
