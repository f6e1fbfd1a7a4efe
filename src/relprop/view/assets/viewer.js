/** The viewer that the app, reports and the docs share: it draws sheets, which relprop.view.sheet makes. */

import { usePalette } from "./colour.js";
import { speak } from "./language.js";

export { card } from "./card.js";
export { heatmap } from "./heatmap.js";
export { number, say } from "./language.js";
export { legend } from "./legend.js";
export { words } from "./passage.js";
export { scores } from "./scores.js";

/**
 * To be called before anything is drawn, and again to change the language; what is drawn already follows with its next
 * update. `palette` is the colours' bytes in base64, `language` "en" or "ko".
 */
export function configure({ palette, language }) {
  if (palette !== undefined) usePalette(palette);
  if (language !== undefined) speak(language);
}
