// What all parts of the page share: state, API, messages, the panel, the player and the tray.

import * as api from "./api.js";
import { fill, h, iconButton } from "./dom.js";
import { State } from "./state.js";

const TOAST_MS = 6000;

export class App {
  #panel = null; // {name, module, unmount, opener}

  constructor() {
    this.api = api;
    this.state = new State();
    this.player = null; // js/player.js; play({video_id, name, kind, start_s, end_s})
    this.tray = null; // js/tray.js
    this.results = null; // js/results.js
    this.searchBox = null; // js/searchbox.js
  }

  /** Show what an indexing job has added, where nothing was found before it. */
  libraryChanged() {
    this.results.renew();
    this.searchBox.renew();
  }

  /** Tell a screen reader. */
  announce(text) {
    document.querySelector("#status").textContent = text;
  }

  /**
   * Show a message for some seconds.
   *
   * @param {string} text
   * @param {"plain"|"good"|"bad"} [kind]
   */
  toast(text, kind = "plain") {
    const close = () => note.remove();
    const note = h("div", { class: "toast", "data-kind": kind }, h("span", {}, text), iconButton("close", "Close the message", close, { class: "button icon plain" }));
    document.querySelector("#toasts").append(note);
    if (kind !== "bad") setTimeout(close, TOAST_MS);
  }

  /**
   * Open a panel, or bring it up to date where it is open.
   *
   * @param {string} name module of `js/panels/`
   * @param {Object} [args] for the panel
   */
  async openPanel(name, args) {
    if (this.#panel?.name === name && this.#panel.handle?.update) {
      this.#panel.handle.update(args);
      return;
    }
    const opener = this.#panel?.opener ?? document.activeElement;
    this.closePanel({ restore: false });
    const aside = document.querySelector("#panel");
    const title = h("h2", { id: "panel-title", tabIndex: -1 }, "…");
    const body = h("div", { class: "panel-body", "aria-busy": "true" });
    const close = iconButton("close", "Close the panel", () => this.closePanel());
    fill(aside, h("header", {}, title, close), body);
    aside.hidden = false;
    const opened = { name, opener, handle: null };
    this.#panel = opened;
    this.#markPanels();
    try {
      const module = await import(`./panels/${name}.js`);
      if (this.#panel !== opened) return;
      title.textContent = module.title;
      opened.handle = module.mount(body, this, args);
    } catch (error) {
      if (this.#panel !== opened) return;
      title.textContent = "Panel";
      fill(body, h("p", { class: "bad" }, `This panel cannot be shown: ${error.message}`));
    }
    body.removeAttribute("aria-busy");
    if (!aside.contains(document.activeElement)) title.focus({ preventScroll: true });
  }

  /** Close the panel; the focus returns to where it was opened. */
  closePanel({ restore = true } = {}) {
    if (!this.#panel) return;
    const { handle, opener } = this.#panel;
    const aside = document.querySelector("#panel");
    const inside = aside.contains(document.activeElement);
    this.#panel = null;
    handle?.unmount?.();
    aside.hidden = true;
    aside.replaceChildren();
    this.#markPanels();
    if (restore && inside && opener?.isConnected) opener.focus({ preventScroll: true });
  }

  /** Name of the open panel; null = none. */
  get panel() {
    return this.#panel?.name ?? null;
  }

  #markPanels() {
    for (const button of document.querySelectorAll("#panels [data-panel]")) {
      button.setAttribute("aria-expanded", String(button.dataset.panel === this.panel));
    }
  }
}
