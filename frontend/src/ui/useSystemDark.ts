import { useEffect, useState } from "react";

/** Whether the system asks for dark colours; follows it. */
export function useSystemDark(): boolean {
	const [dark, setDark] = useState(() => matchMedia("(prefers-color-scheme: dark)").matches);
	useEffect(() => {
		const query = matchMedia("(prefers-color-scheme: dark)");
		const tell = () => setDark(query.matches);
		query.addEventListener("change", tell);
		return () => query.removeEventListener("change", tell);
	}, []);
	return dark;
}
