// What a session is made of. Each part is told only of those that it needs (`Pick`).
import type { Clock } from "../connection/clock";
import type { Connection } from "../connection/connection";
import type { Edits } from "../steering/edits";
import type { Steering } from "../steering/steering";
import type { FrameBatch, Signal } from "../store/signal";
import type { CursorStore } from "./cursor";
import type { Delivery } from "./delivery";
import type { Notes } from "./notes";
import type { Offers } from "./offers";
import type { KnownServer } from "./server";
import type { Turns } from "./turns";

export interface Parts {
	readonly connection: Connection;
	readonly server: KnownServer;
	readonly turns: Turns;
	readonly notes: Notes;
	readonly offers: Offers;
	readonly steering: Steering;
	readonly edits: Edits;
	readonly delivery: Delivery;
	readonly cursor: CursorStore;
	readonly clock: Clock;
	readonly batch: FrameBatch;
	/** Tells that anything of the session changed, but not the text and numbers of a run. */
	readonly changed: Signal;
}
