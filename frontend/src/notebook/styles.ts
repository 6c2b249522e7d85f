// The page's styles for a shadow tree, whose root is its host.
import base from "../styles/base.css?inline";
import chat from "../styles/chat.css?inline";
import heatmap from "../styles/heatmap.css?inline";
import layout from "../styles/layout.css?inline";
import motion from "../styles/motion.css?inline";
import steering from "../styles/steering.css?inline";
import { forShadow } from "./shadow";
import own from "./widget.css?inline";

export const STYLES = forShadow([base, layout, chat, heatmap, steering, motion, own].join("\n"));
