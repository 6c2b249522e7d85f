import { CloseIcon } from "./icons";

/** One sentence about what went wrong, beside what it is about. */
export function ErrorBanner({ message, onDismiss }: { message: string; onDismiss?: () => void }) {
	return (
		<div className="error-banner" role="alert" data-testid="error-banner">
			<span>{message}</span>
			{onDismiss && (
				<button type="button" className="quiet" aria-label="Dismiss this message" onClick={onDismiss}>
					<CloseIcon />
				</button>
			)}
		</div>
	);
}
