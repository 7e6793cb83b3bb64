// A bar of progress with its words. Screen readers hear quarters, not each step.

import { h } from "../dom.js";

/**
 * Make a bar.
 *
 * @param {string} label what is going on, for screen readers
 * @param {function(string): void} announce
 * @returns {{element: HTMLElement, show: function(number|null, string): void}} `show(share, text)`: null = share unknown
 */
export function progress(label, announce) {
  const bar = h("progress", { max: 1, "aria-label": label });
  const text = h("p", { class: "soft numbers" });
  let told = 0;
  return {
    element: h("div", { class: "progress" }, bar, text),
    show(share, words) {
      if (share === null) bar.removeAttribute("value");
      else bar.value = share;
      text.textContent = words;
      const quarter = Math.floor(4 * (share ?? 0));
      if (quarter > told && quarter < 4) announce(`${label}: ${25 * quarter}%`);
      told = Math.max(told, quarter);
    },
  };
}
