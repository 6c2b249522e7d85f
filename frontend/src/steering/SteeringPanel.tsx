// All sliders of the vectors that the server knows, and the one thing about steering that surprises people.
import { useState } from "react";
import type { Session } from "../session/session";
import { ErrorBanner } from "../ui/ErrorBanner";
import { InfoIcon } from "../ui/icons";
import { useSignal } from "../ui/useSignal";
import { Slider } from "./Slider";

export function SteeringPanel({ session }: { session: Session }) {
	useSignal(session.changed);
	useSignal(session.steering.changed);
	const [info, setInfo] = useState(false);
	const { steering, notice } = session;
	const { vectors } = session.server;
	return (
		<section className="panel steering" aria-label="Steering">
			<header className="panel-head">
				<h2>Steering</h2>
				<button
					type="button"
					className="quiet"
					aria-expanded={info}
					aria-label="What going back to 0 does"
					title="What going back to 0 does"
					onClick={() => setInfo(!info)}
				>
					<InfoIcon />
				</button>
				<span className="spring" />
				<button
					type="button"
					className="quiet"
					data-testid="reset-all"
					disabled={Object.keys(steering.strengths()).length === 0}
					onClick={() => steering.resetAll()}
				>
					Reset all
				</button>
			</header>
			{info && (
				<p className="steering-note">
					A slider acts on the next token. Back at 0 the next token is computed unsteered, but tokens that
					were written under steering stay in the model's memory (its KV cache) and go on colouring the reply.
					To be rid of them, regenerate.
				</p>
			)}
			{notice?.place === "steering" && (
				<ErrorBanner message={notice.message} onDismiss={() => session.dismiss()} />
			)}
			{vectors.length === 0 ? (
				<p className="muted steering-empty">
					No steering vectors yet. They appear here when the server has some.
				</p>
			) : (
				<div className="sliders">
					{vectors.map((vector) => (
						<Slider
							key={vector.id}
							vector={vector}
							value={steering.get(vector.id)}
							status={steering.status(vector.id)}
							onChange={(value) => steering.set(vector.id, value)}
						/>
					))}
				</div>
			)}
		</section>
	);
}
