// A button that opens a short list of things to do. The list goes when one was chosen, with Escape, and when a person
// turns to something else; the keyboard is then where it was.
import { type KeyboardEvent, type ReactNode, useEffect, useId, useRef, useState } from "react";
import { isComposing } from "./composing";

export interface MenuItem {
	label: string;
	hint: string;
	testid: string;
	disabled?: boolean;
	onChoose(): void;
}

interface MenuProps {
	label: ReactNode;
	testid: string;
	title: string;
	disabled: boolean;
	items: readonly MenuItem[];
}

export function Menu({ label, testid, title, disabled, items }: MenuProps) {
	const [open, setOpen] = useState(false);
	const host = useRef<HTMLSpanElement>(null);
	const button = useRef<HTMLButtonElement>(null);
	const id = useId();

	useEffect(() => {
		if (!open) return;
		host.current?.querySelector<HTMLButtonElement>("[role=menuitem]:not(:disabled)")?.focus();
		const away = (event: Event) => {
			if (!host.current?.contains(event.target as Node)) setOpen(false);
		};
		document.addEventListener("pointerdown", away);
		document.addEventListener("focusin", away);
		return () => {
			document.removeEventListener("pointerdown", away);
			document.removeEventListener("focusin", away);
		};
	}, [open]);

	const close = () => {
		setOpen(false);
		button.current?.focus();
	};
	const onKey = (event: KeyboardEvent) => {
		if (!open || isComposing(event.nativeEvent)) return;
		if (event.key === "Escape") {
			// Elsewhere Escape stops the reply.
			event.preventDefault();
			close();
			return;
		}
		const move = { ArrowDown: 1, ArrowUp: -1 }[event.key];
		if (move === undefined) return;
		event.preventDefault();
		const choices = [...host.current!.querySelectorAll<HTMLButtonElement>("[role=menuitem]:not(:disabled)")];
		const at = choices.indexOf(document.activeElement as HTMLButtonElement);
		choices[(at + move + choices.length) % choices.length]?.focus();
	};
	return (
		// biome-ignore lint/a11y/noStaticElementInteractions: keys of the buttons inside pass through here
		<span className="menu" ref={host} onKeyDown={onKey}>
			<button
				ref={button}
				type="button"
				className="quiet"
				data-testid={testid}
				title={title}
				disabled={disabled}
				aria-haspopup="menu"
				aria-expanded={open}
				aria-controls={id}
				onClick={() => setOpen(!open)}
			>
				{label}
			</button>
			{open && (
				<div className="menu-list" role="menu" id={id} aria-label={title}>
					{items.map((item) => (
						<button
							key={item.testid}
							type="button"
							role="menuitem"
							data-testid={item.testid}
							disabled={item.disabled}
							onClick={() => {
								close();
								item.onChoose();
							}}
						>
							<span>{item.label}</span>
							<span className="hint">{item.hint}</span>
						</button>
					))}
				</div>
			)}
		</span>
	);
}
