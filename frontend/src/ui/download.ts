/** Hand a file to the browser's downloads. */
export function download(file: Blob, name: string): void {
	const address = URL.createObjectURL(file);
	const link = document.createElement("a");
	link.href = address;
	link.download = name;
	link.click();
	// Not at once: the browser may begin to read it a little later.
	setTimeout(() => URL.revokeObjectURL(address), 60_000);
}
