// A field for a number that leaves alone what is being typed. The browser gives no text for what is not yet a
// number ("-", "1e"), and React would write the last value over it: such a text is told of as UNFINISHED, and the
// field is given back what the browser says that it holds. `onInput`, because React calls `onChange` only where the
// browser's text has changed, which a "-" in an empty field does not do.
import type { InputHTMLAttributes } from "react";

/** Stands for a text that is no number yet. It is none itself. */
export const UNFINISHED = "-";

interface NumberInputProps extends Omit<InputHTMLAttributes<HTMLInputElement>, "type" | "value" | "onInput"> {
	/** A number's text, "" or UNFINISHED. */
	text: string;
	onText(text: string): void;
}

export function NumberInput({ text, onText, ...rest }: NumberInputProps) {
	return (
		<input
			{...rest}
			type="number"
			value={text === UNFINISHED ? "" : text}
			onInput={({ currentTarget }) =>
				onText(currentTarget.validity.badInput ? UNFINISHED : currentTarget.value)
			}
		/>
	);
}
