// What is known of the server that answers: what it said in `welcome`, and since then in `engine` frames.
import type { ConnectionState } from "../connection/phase";
import type {
	AdapterInfo,
	Engine,
	EngineStatus,
	Limits,
	MetricInfo,
	ModelInfo,
	VectorInfo,
	Welcome,
} from "../protocol/types.gen";
import { awaySentence } from "./away";

export class KnownServer {
	/** Why nothing can be asked, steered or watched whatever the engine does, as a sentence: a recording plays. */
	readOnly: string | null = null;
	name = "";
	/** Its software and version, such as "steersight/0.1.0". */
	software = "";
	/** The life of the server that answers now; null before the first welcome. */
	epoch: string | null = null;
	engine: EngineStatus | null = null;
	model: ModelInfo | null = null;
	metrics: MetricInfo[] = [];
	vectors: VectorInfo[] = [];
	limits: Limits | null = null;
	/** Whether this page may have the model changed. */
	changeModel = false;
	/** Models that this server was heard to serve, by their ids: what one of them wrote stays on the page. */
	readonly #models = new Map<string, ModelInfo>();
	/** The engine was ready before, in this life of the server. */
	#wasReady = false;

	get ready(): boolean {
		return this.engine?.state === "ready";
	}

	/** Whether the served model has no chat template: it continues a text and answers nothing. */
	get continues(): boolean {
		return this.model?.chat === "none";
	}

	/** LoRA adapters that a reply may be written with; an older server knows none. */
	get adapters(): readonly AdapterInfo[] {
		return this.model?.adapters ?? [];
	}

	/** Why the server takes nothing now, as a sentence, or null when it does. */
	away(connection: ConnectionState): string | null {
		return this.readOnly ?? awaySentence(connection, this.engine, this.#wasReady);
	}

	/** The model of this id, as far as it was heard of; without an id the one that is served. */
	modelNamed(id: string): ModelInfo | null {
		return id === "" ? this.model : (this.#models.get(id) ?? null);
	}

	welcome({ server, name, epoch, engine, model, metrics, vectors, limits, change_model }: Welcome): void {
		if (epoch !== this.epoch) this.#wasReady = false;
		Object.assign(this, { software: server, name, epoch, limits, changeModel: change_model === true });
		this.#modelIs(model);
		this.#engineIs(engine);
		this.#metricsAre(metrics);
		this.vectors = vectors;
	}

	/** While an engine is not ready its metrics and vectors may be still to come: those that were known stay. */
	engineFrame({ state, stage, progress, model, metrics, vectors }: Engine): void {
		this.#modelIs(model ?? this.model);
		this.#engineIs({ state, stage, progress });
		if (metrics.length > 0 || this.ready) this.#metricsAre(metrics);
		if (vectors.length > 0 || this.ready) this.vectors = vectors;
	}

	#modelIs(model: ModelInfo | null): void {
		this.model = model;
		if (model !== null) this.#models.set(model.id, model);
	}

	#engineIs(engine: EngineStatus): void {
		this.engine = engine;
		this.#wasReady ||= this.ready;
	}

	/** A metric that is as it was stays the same object: a new one would have the map fitted anew. */
	#metricsAre(metrics: readonly MetricInfo[]): void {
		const before = new Map(this.metrics.map((metric) => [JSON.stringify(metric), metric]));
		this.metrics = metrics.map((metric) => before.get(JSON.stringify(metric)) ?? metric);
	}
}
