// A modal window over the page: the browser's own <dialog>, which keeps the keyboard inside and gives it back.
import { type ReactNode, useId, useLayoutEffect, useRef } from "react";
import { isComposing } from "./composing";
import { CloseIcon } from "./icons";

interface DialogProps {
	title: string;
	testid: string;
	onClose(): void;
	children: ReactNode;
}

export function Dialog({ title, testid, onClose, children }: DialogProps) {
	const dialog = useRef<HTMLDialogElement>(null);
	const name = useId();
	useLayoutEffect(() => {
		const element = dialog.current!;
		element.showModal();
		return () => element.close();
	}, []);
	return (
		<dialog
			ref={dialog}
			className="dialog"
			data-testid={testid}
			aria-labelledby={name}
			onCancel={(event) => {
				// A file chooser inside bubbles its own cancel up to here.
				if (event.target !== event.currentTarget) return;
				event.preventDefault();
				onClose();
			}}
			onKeyDown={(event) => {
				if (event.key !== "Escape" || event.defaultPrevented || isComposing(event.nativeEvent)) return;
				// Elsewhere Escape stops the reply.
				event.preventDefault();
				onClose();
			}}
		>
			<header className="dialog-head">
				<h2 id={name} dir="auto">
					{title}
				</h2>
				<span className="spring" />
				<button
					type="button"
					className="quiet"
					aria-label="Close"
					data-testid={`${testid}-close`}
					onClick={onClose}
				>
					<CloseIcon />
				</button>
			</header>
			<div className="dialog-body">{children}</div>
		</dialog>
	);
}
