import { CloseIcon } from "./icons";

/** One sentence that a person should know and nothing went wrong with. */
export function NoticeBanner({ message, onDismiss }: { message: string; onDismiss(): void }) {
	return (
		<div className="notice-banner" role="status" data-testid="notice-banner">
			<span>{message}</span>
			<button type="button" className="quiet" aria-label="Dismiss this message" onClick={onDismiss}>
				<CloseIcon />
			</button>
		</div>
	);
}
