// One vector's slider with what is known while it acts. A panel may have hundreds, and a dragged one moves in every
// frame: each is rendered only when something about itself has changed.
import { memo } from "react";
import type { VectorInfo } from "../protocol/types.gen";
import type { Session } from "../session/session";
import type { Settings } from "../session/settings";
import type { Run } from "../store/run";
import type { DamageMeter } from "./live";
import { SliderSigns } from "./Signs";
import { Slider } from "./Slider";
import type { Setting } from "./setting";
import type { SliderStatus } from "./steering";

interface VectorSliderProps {
	session: Session;
	/** Null where no reply can be asked for. */
	settings: Settings | null;
	meter: DamageMeter;
	vector: VectorInfo;
	/** The run in which it acts or acted; null where there is nothing to say of it. */
	run: Run | null;
	value: number;
	setting: Setting;
	status: SliderStatus;
	modelLayers: number;
	/** The model's replies have a thought and an answer. */
	thinks: boolean;
	/** Null where nothing more of it can be shown. */
	onCard: ((vector: string) => void) | null;
}

export const VectorSlider = memo(function VectorSlider(props: VectorSliderProps) {
	const { session, settings, meter, vector, run, onCard, ...shown } = props;
	const { steering } = session;
	return (
		<Slider
			{...shown}
			vector={vector}
			onChange={(value) => steering.set(vector.id, value)}
			onAct={(setting, value) => steering.act(vector.id, setting, value)}
			onCard={onCard === null ? null : () => onCard(vector.id)}
		>
			{run !== null && (
				<SliderSigns session={session} run={run} meter={meter} vector={vector} settings={settings} />
			)}
		</Slider>
	);
}, sameButForStatus);

/** A status is made anew each time it is asked for; all else stays the same object until it changes. */
function sameButForStatus(before: VectorSliderProps, after: VectorSliderProps): boolean {
	for (const name in after) {
		const key = name as keyof VectorSliderProps;
		if (key !== "status" && !Object.is(before[key], after[key])) return false;
	}
	return sameStatus(before.status, after.status);
}

function sameStatus(one: SliderStatus, other: SliderStatus): boolean {
	if (one.kind !== other.kind) return false;
	if (one.kind === "sent" && other.kind === "sent") return one.rev === other.rev;
	return one.kind !== "in-force" || other.kind !== "in-force" || one.position === other.position;
}
