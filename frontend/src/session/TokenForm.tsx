// Asks for the token where the server wants one: a bar under the head of the page, gone as soon as it is right.
// What was typed goes to the server in `hello` and as a header, and stays in this tab.
import { type FormEvent, useId, useState } from "react";
import { useSignal } from "../ui/useSignal";
import type { Session } from "./session";

export function TokenForm({ session }: { session: Session }) {
	useSignal(session.changed);
	const [text, setText] = useState("");
	const [tried, setTried] = useState(false);
	const id = useId();
	const { state, token } = session.connection;
	const refused = state.kind === "given-up" && state.reason === "unauthorized";
	// While it is being tried the form stays, so that it does not jump where the answer is no.
	if (!refused && !(tried && state.kind === "connecting")) return null;

	const use = (event: FormEvent) => {
		event.preventDefault();
		if (text.trim() === "") return;
		setTried(true);
		session.sayToken(text.trim());
	};
	const wrong = refused && token !== null;
	return (
		<form className="token-form" data-testid="token-form" onSubmit={use}>
			<label htmlFor={id}>This server asks for a token</label>
			<input
				id={id}
				type="password"
				data-testid="token"
				autoComplete="current-password"
				// biome-ignore lint/a11y/noAutofocus: nothing else on the page works before
				autoFocus
				value={text}
				aria-invalid={wrong}
				aria-describedby={`${id}-wrong`}
				onChange={(event) => setText(event.target.value)}
			/>
			<button type="submit" className="primary" data-testid="token-use" disabled={text.trim() === ""}>
				Connect
			</button>
			<span id={`${id}-wrong`} className="hint wrong" role="alert" data-testid="token-wrong">
				{wrong && "The server did not accept this token."}
			</span>
		</form>
	);
}
