/** What is wrong with a recording, as a sentence that names the member of the file or the field of `meta.json`. */
export class RecordingError extends Error {
	override name = "RecordingError";
}
