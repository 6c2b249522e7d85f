// One small served model with a metric and a vector, and the frames that tell of it. Used by tests only.
import { defaultSettings } from "../session/settings";
import { engineFrame, metricInfo, modelInfo, vectorInfo, welcomeFrame } from "./frames";

export const joy = vectorInfo();
export const metric = metricInfo();
export const model = modelInfo({ special_ids: [7] });
const offers = { model, metrics: [metric], vectors: [joy] };
export const welcome = welcomeFrame(offers);
export const ready = engineFrame(offers);
export const settings = defaultSettings();
