// The few signs the page needs, drawn on a 16-unit grid in the text's colour. They never speak: the button
// around one has the words.
import type { ReactNode } from "react";

function Icon({ children }: { children: ReactNode }) {
	return (
		<svg
			className="icon"
			viewBox="0 0 16 16"
			width="16"
			height="16"
			fill="none"
			stroke="currentColor"
			strokeWidth="1.5"
			strokeLinecap="round"
			strokeLinejoin="round"
			aria-hidden="true"
			focusable="false"
		>
			{children}
		</svg>
	);
}

export const SendIcon = () => (
	<Icon>
		<path d="M8 13V3M3.5 7.5 8 3l4.5 4.5" />
	</Icon>
);
export const StopIcon = () => (
	<Icon>
		<rect x="4" y="4" width="8" height="8" rx="1" fill="currentColor" />
	</Icon>
);
export const AgainIcon = () => (
	<Icon>
		<path d="M13 8a5 5 0 1 1-1.6-3.7M13 2v3h-3" />
	</Icon>
);
export const PlusIcon = () => (
	<Icon>
		<path d="M8 3v10M3 8h10" />
	</Icon>
);
export const MinusIcon = () => (
	<Icon>
		<path d="M3 8h10" />
	</Icon>
);
export const SettingsIcon = () => (
	<Icon>
		<path d="M2 5h6M12 5h2M2 11h2M8 11h6" />
		<circle cx="10" cy="5" r="2" />
		<circle cx="6" cy="11" r="2" />
	</Icon>
);
export const CloseIcon = () => (
	<Icon>
		<path d="m4 4 8 8M12 4l-8 8" />
	</Icon>
);
export const SunIcon = () => (
	<Icon>
		<circle cx="8" cy="8" r="2.75" />
		<path d="M8 1.5v1.5M8 13v1.5M1.5 8H3M13 8h1.5M3.4 3.4l1 1M11.6 11.6l1 1M12.6 3.4l-1 1M4.4 11.6l-1 1" />
	</Icon>
);
export const MoonIcon = () => (
	<Icon>
		<path d="M13.5 9.5A5.8 5.8 0 0 1 6.5 2.5a5.8 5.8 0 1 0 7 7Z" />
	</Icon>
);
export const InfoIcon = () => (
	<Icon>
		<circle cx="8" cy="8" r="6" />
		<path d="M8 7.5v3.5M8 5v.01" />
	</Icon>
);
export const LinkIcon = () => (
	<Icon>
		<path d="M6.5 9.5 9.5 6.5M7 4.5l1.8-1.8a3.2 3.2 0 0 1 4.5 4.5L11.5 9M9 11.5l-1.8 1.8a3.2 3.2 0 0 1-4.5-4.5L4.5 7" />
	</Icon>
);
export const ImportIcon = () => (
	<Icon>
		<path d="M8 2v8M4.5 6.5 8 10l3.5-3.5M2.5 13.5h11" />
	</Icon>
);
export const EyeIcon = () => (
	<Icon>
		<path d="M1.5 8S4 3.5 8 3.5 14.5 8 14.5 8 12 12.5 8 12.5 1.5 8 1.5 8Z" />
		<circle cx="8" cy="8" r="2" />
	</Icon>
);
export const LatestIcon = () => (
	<Icon>
		<path d="M2.5 8h8M7 4.5 10.5 8 7 11.5M13.5 3.5v9" />
	</Icon>
);
export const UndoIcon = () => (
	<Icon>
		<path d="M5.5 3 2.5 6l3 3M2.5 6H9a4 4 0 0 1 0 8H6" />
	</Icon>
);
export const RedoIcon = () => (
	<Icon>
		<path d="M10.5 3l3 3-3 3M13.5 6H7a4 4 0 0 0 0 8h3" />
	</Icon>
);
export const Mark = () => (
	<svg className="mark" viewBox="0 0 24 24" width="22" height="22" aria-hidden="true" focusable="false">
		<rect x="2" y="13" width="4" height="9" rx="1" fill="var(--accent)" opacity="0.35" />
		<rect x="8" y="8" width="4" height="14" rx="1" fill="var(--accent)" opacity="0.6" />
		<rect x="14" y="2" width="4" height="20" rx="1" fill="var(--accent)" />
		<rect x="20" y="2" width="2" height="20" rx="1" fill="var(--signal)" />
	</svg>
);
export const OpenIcon = () => (
	<Icon>
		<path d="M1.5 12.5v-9h4l1.5 2h6v2M1.5 12.5l2-5h11l-2 5z" />
	</Icon>
);
export const SaveIcon = () => (
	<Icon>
		<path d="M8 2v8M4.5 6.5 8 10l3.5-3.5M2.5 11.5v2h11v-2" />
	</Icon>
);
