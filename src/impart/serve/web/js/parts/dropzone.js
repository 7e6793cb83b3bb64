// A place for images: dropped, pasted or chosen.

import { h, icon } from "../dom.js";

/**
 * Make a drop zone.
 *
 * @param {string} label
 * @param {function(File[]): void} onfiles called with the images; other files are left out by the caller's server
 * @returns {HTMLElement}
 */
export function dropzone(label, onfiles) {
  const input = h("input", { type: "file", accept: "image/*", multiple: true, class: "unseen", tabIndex: -1, "aria-label": label });
  const choose = h("button", { type: "button", class: "button", onclick: () => input.click() }, icon("image"), "Choose images");
  input.addEventListener("change", () => {
    const files = [...input.files];
    input.value = ""; // so that the same file can be chosen again
    if (files.length) onfiles(files);
  });
  const element = h("div", { class: "dropzone" }, h("p", { class: "soft" }, label), choose, input);
  let depth = 0; // of entered children
  const over = (change) => {
    depth = Math.max(0, depth + change);
    element.classList.toggle("over", depth > 0);
  };
  const own = (type, act) =>
    element.addEventListener(type, (event) => {
      event.preventDefault();
      event.stopPropagation(); // the page itself takes dropped images as queries
      act(event);
    });
  own("dragenter", () => over(1));
  own("dragleave", () => over(-1));
  own("dragover", (event) => (event.dataTransfer.dropEffect = "copy"));
  own("drop", (event) => {
    over(-depth);
    if (event.dataTransfer.files.length) onfiles([...event.dataTransfer.files]);
  });
  return element;
}

/** Take pasted images of a whole element, such as a form; pasted text goes where it belongs. */
export function takePasted(element, onfiles) {
  element.addEventListener("paste", (event) => {
    const files = [...(event.clipboardData?.files ?? [])].filter((file) => file.type.startsWith("image/"));
    if (!files.length) return;
    event.preventDefault();
    event.stopPropagation();
    onfiles(files);
  });
}
