export * from "./frames";
export * from "./tools";
