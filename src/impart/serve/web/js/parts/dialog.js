// Dialogs. `<dialog>` keeps the focus inside, closes with Escape and gives the focus back to where it was.

import { h, iconButton } from "../dom.js";

/**
 * Make a dialog with a title and a button that closes it; `open()` shows it.
 *
 * @param {string} title
 * @param {...any} children
 * @returns {{element: HTMLDialogElement, open: function(): void, close: function(): void}}
 */
export function dialog(title, ...children) {
  const close = iconButton("close", "Close", () => element.close(), { class: "button icon plain" });
  const element = h(
    "dialog",
    { class: "dialog", "aria-label": title },
    h("header", { class: "dialog-head" }, h("h2", {}, title), close),
    h("div", { class: "dialog-body" }, children),
  );
  element.addEventListener("click", (event) => event.target === element && element.close()); // beside it
  element.addEventListener("keydown", (event) => event.stopPropagation()); // keys of the page do not act behind it
  return {
    element,
    open: () => {
      if (!element.isConnected) document.body.append(element);
      if (!element.open) element.showModal();
    },
    close: () => element.close(),
  };
}

/**
 * Ask before something that cannot be taken back.
 *
 * @param {{title: string, text: string, action: string}} question `action` is the text of the button that does it
 * @returns {Promise<boolean>} whether to do it
 */
export function confirm({ title, text, action }) {
  return new Promise((resolve) => {
    let agreed = false;
    const cancel = h("button", { type: "button", class: "button", onclick: () => shown.close() }, "Cancel");
    const agree = h("button", { type: "button", class: "button danger", onclick: () => ((agreed = true), shown.close()) }, action);
    const shown = dialog(title, h("p", {}, text), h("div", { class: "row end" }, cancel, agree));
    shown.element.addEventListener("close", () => {
      shown.element.remove();
      resolve(agreed);
    });
    shown.open();
    cancel.focus();
  });
}
