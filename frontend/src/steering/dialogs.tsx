// The dialogs of the Steering panel, in a chunk of their own: only a page with a live server can open them, and only for
// the asking.
export { ImportDialog } from "./ImportDialog";
export { NewSlider } from "./NewSlider";
export { VectorCard } from "./VectorCard";
