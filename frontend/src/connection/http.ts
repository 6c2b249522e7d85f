// Requests to the server's HTTP routes. Addresses are relative to the page's, so that a path prefix before it holds
// for them too. A token travels as a header, never in an address. Every refusal becomes an ApiError whose message is
// the server's sentence.

export class ApiError extends Error {
	override name = "ApiError";
	constructor(
		message: string,
		/** HTTP status, 0 when there was no answer. */
		readonly status: number,
	) {
		super(message);
	}
}

export type Fetch = (path: string, init?: RequestInit) => Promise<Response>;

export class Http {
	constructor(
		private readonly token: () => string | null = () => null,
		private readonly fetch: Fetch = (path, init) => globalThis.fetch(path, init),
	) {}

	/** The answer as it is said to be; it is checked only as far as whoever asks relies on it. */
	async json<T>(path: string, init?: RequestInit): Promise<T> {
		const response = await this.ask(path, init);
		try {
			return (await response.json()) as T;
		} catch {
			throw new ApiError("The server's answer cannot be read.", response.status);
		}
	}

	async ask(path: string, init?: RequestInit): Promise<Response> {
		const token = this.token();
		const headers = new Headers(init?.headers);
		if (token !== null) headers.set("authorization", `Bearer ${token}`);
		let response: Response;
		try {
			response = await this.fetch(path, { ...init, headers });
		} catch {
			throw new ApiError("The server cannot be reached.", 0);
		}
		if (!response.ok) throw new ApiError(await sentence(response), response.status);
		return response;
	}
}

async function sentence(response: Response): Promise<string> {
	try {
		const { error } = (await response.json()) as { error?: unknown };
		if (typeof error === "string" && error !== "") return error;
	} catch {
		// An answer of a proxy, say.
	}
	return `The server refused this (${response.status}).`;
}
