// All sliders of the vectors that the server knows, the ways to get more of them, and what is known while they act.
import { Suspense, useCallback, useState } from "react";
import type { Session } from "../session/session";
import { adapterOf, type Settings } from "../session/settings";
import type { Run, Steered } from "../store/run";
import { ErrorBanner } from "../ui/ErrorBanner";
import { ImportIcon, InfoIcon, LinkIcon, PlusIcon } from "../ui/icons";
import { lazily } from "../ui/lazily";
import { NoticeBanner } from "../ui/NoticeBanner";
import { useSignal } from "../ui/useSignal";
import { EMPTY } from "./draft";
import { EditList } from "./EditList";
import { DamageMeter } from "./live";
import { RunSigns } from "./Signs";
import { sharedOf, shareLink } from "./share";
import { VectorSlider } from "./VectorSlider";

const NewSlider = lazily(async () => (await import("./dialogs")).NewSlider);
const ImportDialog = lazily(async () => (await import("./dialogs")).ImportDialog);
const VectorCard = lazily(async () => (await import("./dialogs")).VectorCard);

/** Beyond so many sliders those out of view are not laid out. */
const MANY = 40;

type Open = { kind: "new" } | { kind: "import" } | { kind: "card"; vector: string } | null;

interface SteeringPanelProps {
	session: Session;
	/** What the next reply is asked for with; null where none can be, nor a vector made or brought: sliders are all then. */
	settings: Settings | null;
}

export function SteeringPanel({ session, settings }: SteeringPanelProps) {
	useSignal(session.changed);
	useSignal(session.steering.changed);
	const [info, setInfo] = useState(false);
	const [open, setOpen] = useState<Open>(null);
	const [draft, setDraft] = useState(EMPTY);
	const [meter] = useState(() => new DamageMeter());
	const showCard = useCallback((vector: string) => setOpen({ kind: "card", vector }), []);
	const { steering, notice } = session;
	const { vectors, model } = session.server;
	const card = open?.kind === "card" ? vectors.find(({ id }) => id === open.vector) : undefined;
	const { run } = steering;
	// Where there is no next reply, sliders steer the one that is being written or nothing.
	const over = settings === null && run !== null && !run.delivery.live;
	const fixed = session.can.steer !== null || over;
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
				{!fixed && settings !== null && (
					<>
						<button
							type="button"
							className="quiet"
							data-testid="new-slider"
							onClick={() => setOpen({ kind: "new" })}
						>
							<PlusIcon /> New slider
						</button>
						<button
							type="button"
							className="quiet"
							data-testid="import"
							onClick={() => setOpen({ kind: "import" })}
						>
							<ImportIcon /> Import
						</button>
						<ShareButton session={session} />
					</>
				)}
				{!fixed && (
					<button
						type="button"
						className="quiet"
						data-testid="reset-all"
						disabled={Object.keys(steering.strengths()).length === 0}
						onClick={() => steering.resetAll()}
					>
						Reset all
					</button>
				)}
			</header>
			{fixed && vectors.length > 0 && (
				<p className="steering-note" data-testid="sliders-fixed">
					{run !== null && lastSteered(run) === null
						? "How the reply on the map was steered is not known."
						: "Sliders stand as at the end of the reply on the map. Here they cannot be moved."}
				</p>
			)}
			{info && (
				<p className="steering-note">
					A slider acts on the next token. Back at 0 the next token is computed unsteered, but tokens that
					were written under steering stay in the model's memory (its KV cache) and go on colouring the reply.
					To be rid of them, regenerate, or write on from there again.
				</p>
			)}
			{notice?.place === "steering" && (
				<ErrorBanner message={notice.message} onDismiss={() => session.dismiss()} />
			)}
			{steering.problem !== null && (
				<ErrorBanner message={steering.problem} onDismiss={() => steering.dismiss()} />
			)}
			{session.slidersNote !== null && (
				<NoticeBanner message={session.slidersNote} onDismiss={() => session.dismissSlidersNote()} />
			)}
			{open?.kind !== "new" && <BuildLine session={session} onOpen={() => setOpen({ kind: "new" })} />}
			{run !== null && <RunSigns session={session} run={run} meter={meter} />}
			{settings !== null && <EditList session={session} />}
			{vectors.length === 0 ? (
				<p className="muted steering-empty">
					{fixed
						? "Nothing was steered in this recording."
						: "No steering vectors yet. They appear here when the server has some."}
				</p>
			) : (
				<fieldset className="sliders-all" disabled={fixed}>
					<div className={vectors.length > MANY ? "sliders many" : "sliders"}>
						{vectors.map((vector) => (
							<VectorSlider
								key={vector.id}
								session={session}
								settings={settings}
								meter={meter}
								vector={vector}
								run={run !== null && steering.concerns(vector.id) ? run : null}
								value={steering.get(vector.id)}
								setting={steering.setting(vector.id)}
								status={steering.status(vector.id)}
								modelLayers={model?.layers ?? 0}
								thinks={model?.thoughts != null}
								onCard={settings === null ? null : showCard}
							/>
						))}
					</div>
				</fieldset>
			)}
			<Suspense>
				{open?.kind === "new" && settings !== null && (
					<NewSlider
						session={session}
						draft={draft}
						adapter={adapterOf(settings, session.server.adapters)}
						onDraft={setDraft}
						onClose={() => setOpen(null)}
					/>
				)}
				{open?.kind === "import" && <ImportDialog session={session} onClose={() => setOpen(null)} />}
				{card !== undefined && <VectorCard session={session} vector={card} onClose={() => setOpen(null)} />}
			</Suspense>
		</section>
	);
}

/** How a run was steered at its end; null where that was never said. */
function lastSteered({ applied, began }: Run): Steered | null {
	const last = applied.at(-1);
	return last === undefined ? began : last.steered;
}

/** A build whose dialog is closed. */
function BuildLine({ session, onOpen }: { session: Session; onOpen(): void }) {
	const { build } = session;
	useSignal(build.changed);
	const { now } = build;
	if (now.kind === "none") return null;
	const label = now.label || "The slider";
	const words = {
		asked: ": asking the server.",
		running: now.kind === "running" ? `: ${now.stage}` : "",
		done: " is ready.",
		failed: now.kind === "failed" ? ` was not made. ${now.message}` : "",
		cancelled: " was cancelled.",
	}[now.kind];
	return (
		<div className="build-line" data-testid="build-line" data-state={now.kind}>
			<span role="status">
				<bdi>{label}</bdi>
				{words}
			</span>
			{now.kind === "running" && <progress value={now.progress} max={1} aria-label={`Building ${label}`} />}
			<button type="button" className="quiet small bordered" data-testid="build-open" onClick={onOpen}>
				Show
			</button>
			{!build.busy && (
				<button
					type="button"
					className="quiet small"
					data-testid="build-dismiss"
					onClick={() => build.forget()}
				>
					Dismiss
				</button>
			)}
		</div>
	);
}

function ShareButton({ session }: { session: Session }) {
	const { steering } = session;
	const [copied, setCopied] = useState<{ link: string; done: boolean } | null>(null);
	const sliders = sharedOf(session.server.vectors, steering.strengths(), (id) => steering.setting(id));
	const link = shareLink(location.href, sliders);
	const empty = link.endsWith("#s=");
	const said = copied !== null && copied.link === link;
	const copy = async () => {
		try {
			await navigator.clipboard.writeText(link);
			setCopied({ link, done: true });
		} catch {
			// No clipboard outside of https and localhost: the address bar can be copied from.
			history.replaceState(null, "", link);
			setCopied({ link, done: false });
		}
	};
	return (
		<>
			<button
				type="button"
				className="quiet"
				data-testid="share"
				data-link={empty ? "" : link}
				disabled={empty}
				title="Copy a link that sets the sliders as they are now"
				onClick={() => void copy()}
			>
				<LinkIcon /> {said ? (copied.done ? "Link copied" : "See the address") : "Share"}
			</button>
			<span className="sr-only" role="status">
				{said && (copied.done ? "The link is copied." : "The link is in the address bar.")}
			</span>
		</>
	);
}
