// Contents that come from the server: while they load, where they fail, and where the server has no such part.

import { fill, h } from "../dom.js";

/** Whether a problem says that the server has no such route, or cannot do it. */
export const isMissing = (problem) => problem.status === 501 || problem.status === 405 || (problem.status === 404 && problem.code === "not_found");

/**
 * Fill an element with what a request gives.
 *
 * @param {HTMLElement} place
 * @param {string} what for messages, such as "the names"
 * @param {function(AbortSignal): Promise<any>} ask
 * @param {function(any): any} draw returns the children
 * @param {{quiet?: boolean}} [options] quiet: what is shown stays until the answer comes
 * @returns {Promise<any>} the answer, or null
 */
export async function load(place, what, ask, draw, { quiet = false } = {}) {
  const run = (place.run = {}); // a later call wins
  if (!quiet || !place.childNodes.length) fill(place, h("p", { class: "soft" }, `Loading ${what} …`));
  place.setAttribute("aria-busy", "true");
  let answer = null;
  try {
    answer = await ask();
    if (place.run === run) fill(place, draw(answer));
  } catch (error) {
    if (error.name === "AbortError" || place.run !== run) return null;
    if (error.status === undefined) console.error(error);
    fill(
      place,
      failed(error, what, () => load(place, what, ask, draw)),
    );
    answer = null;
  } finally {
    if (place.run === run) place.removeAttribute("aria-busy");
  }
  return answer;
}

/** Say what failed, with a button to try again. */
export function failed(error, what, again) {
  if (isMissing(error)) return h("p", { class: "note" }, `This server does not offer ${what}.`);
  return h(
    "div",
    { class: "note bad", role: "alert" },
    h("p", {}, `Cannot load ${what}: ${error.message}`),
    h("button", { type: "button", class: "button", onclick: again }, "Try again"),
  );
}
