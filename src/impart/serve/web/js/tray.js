// The tray: chosen spans in order, kept in this browser for each library, to be exported.

import { frameUrl, get } from "./api.js";
import { clock, h, icon, iconButton, recall, remember } from "./dom.js";
import { exporting } from "./parts/exporting.js";
import { WIDTH_PX, spanCard } from "./parts/spancard.js";
import { dragToReorder } from "./parts/reorder.js";
import { count } from "./parts/words.js";

const SAME_S = 0.05;
const MOST_UNDO = 20;
const MOST_THUMBS = 12; // in the bar
const FIELDS = ["video_id", "name", "start_s", "end_s", "label", "kind"];

/** Chosen spans: {video_id, name, start_s, end_s, label, kind}. A photo has no length. */
export class Tray {
  #items = []; // spans with an `id` of this page
  #removed = []; // [{item, place}] per step that can be undone
  #key = null; // in the storage; null until the library is known
  #view = null;
  #next = 1;

  constructor() {
    this.onchange = null;
  }

  /** The spans in order, as copies. */
  get spans() {
    return this.#items.map((item) => Object.fromEntries(FIELDS.map((name) => [name, item[name]])));
  }

  /** Whether a span is in the tray. */
  has({ video_id, start_s, end_s, kind }) {
    const same = (one) =>
      one.video_id === video_id && (kind === "photo" || (Math.abs(one.start_s - start_s) < SAME_S && Math.abs(one.end_s - end_s) < SAME_S));
    return this.#items.some(same);
  }

  /** Add a span at the end; one that is there already is not added again. Returns whether it was added. */
  add(span) {
    return this.addAll([span]) === 1;
  }

  /** Add spans at the end; returns how many of them were not there. */
  addAll(spans) {
    const before = this.#items.length;
    for (const span of spans) if (!this.has(span)) this.#items.push(this.#item(span));
    const added = this.#items.length - before;
    if (added) this.#changed();
    return added;
  }

  /**
   * Show the tray.
   *
   * @param {HTMLElement} container
   * @param {Object} app
   */
  mount(container, app) {
    this.#view = new View(container, app, this.#actions());
    this.#view.show(this.#items, this.#removed.length);
    this.#restore();
    addEventListener("storage", (event) => {
      if (this.#key !== null && event.key === `impart.${this.#key}`) this.#take(recall(this.#key, [])); // another tab changed it
    });
  }

  #actions() {
    return {
      spans: () => this.spans,
      ids: () => this.#items.map((item) => item.id),
      edit: (id, changes) => {
        Object.assign(this.#find(id), changes);
        this.#changed();
      },
      move: (id, place) => {
        const [item] = this.#items.splice(
          this.#items.findIndex((one) => one.id === id),
          1,
        );
        this.#items.splice(place, 0, item);
        this.#changed();
      },
      remove: (ids) => {
        const step = this.#items.map((item, place) => ({ item, place })).filter(({ item }) => ids.includes(item.id));
        this.#removed = [...this.#removed, step].slice(-MOST_UNDO);
        this.#items = this.#items.filter((item) => !ids.includes(item.id));
        this.#changed();
      },
      undo: () => {
        const step = this.#removed.pop() ?? [];
        for (const { item, place } of step) this.#items.splice(Math.min(place, this.#items.length), 0, item);
        this.#changed();
        return step.map(({ item }) => item.id);
      },
    };
  }

  #item(span) {
    const item = { id: this.#next++, ...Object.fromEntries(FIELDS.map((name) => [name, span[name]])) };
    item.kind ??= "video";
    item.label ??= "";
    if (item.kind === "photo") item.start_s = item.end_s = 0;
    return item;
  }

  #find(id) {
    return this.#items.find((item) => item.id === id);
  }

  async #restore() {
    let library = "";
    try {
      library = (await get("/index")).name ?? "";
    } catch {
      // a server without this route has one tray
    }
    this.#key = `tray.${library}`;
    const early = this.#items; // chosen before the answer came
    this.#items = recall(this.#key, []).map((span) => this.#item(span));
    for (const item of early) if (!this.has(item)) this.#items.push(item);
    this.#changed({ keep: early.length > 0 });
  }

  #take(spans) {
    this.#items = spans.map((span) => this.#item(span));
    this.#changed({ keep: false });
  }

  #changed({ keep = true } = {}) {
    if (keep && this.#key !== null) remember(this.#key, this.spans);
    this.#view?.show(this.#items, this.#removed.length);
    this.onchange?.();
  }
}

/** What the tray shows: a bar at the lower edge, which opens the list. */
class View {
  #cards = new Map(); // by id

  constructor(container, app, actions) {
    this.app = app;
    this.actions = actions;
    this.container = container;
    this.exporting = exporting(app, actions.spans);
    this.toggle = h(
      "button",
      {
        type: "button",
        class: "button plain tray-toggle",
        "aria-expanded": "false",
        "aria-controls": "tray-list",
        onclick: () => this.#open(this.list.hidden),
      },
      icon("more"),
    );
    this.summary = h("span", { class: "numbers" });
    this.toggle.append(h("span", { class: "tray-word" }, "Tray:"), this.summary);
    this.thumbs = h("div", { class: "tray-thumbs", "aria-hidden": "true" });
    this.undo = iconButton("undo", "Undo the last removal", () => this.#undo(), { text: "Undo" });
    this.clear = iconButton("trash", "Remove all", () => this.#clear(), { text: "Clear" });
    this.export = h(
      "button",
      { type: "button", class: "button main", onclick: () => this.exporting.open() },
      icon("download"),
      h("span", {}, "Export"),
    );
    this.list = h("ol", { id: "tray-list", class: "tray-list", hidden: true, tabIndex: -1, "aria-label": "Spans in the tray" });
    this.empty = h(
      "p",
      { class: "soft tray-empty", hidden: true },
      "The tray is empty. Add spans with the button + of a hit, or from the scenes of a video.",
    );
    container.replaceChildren(h("div", { class: "tray-bar" }, this.toggle, this.thumbs, this.undo, this.clear, this.export), this.empty, this.list);
    dragToReorder(this.list, (element, place) => this.#move(Number(element.dataset.id), place));
    new ResizeObserver(() =>
      document.documentElement.style.setProperty("--tray-height", `${container.hidden ? 0 : container.offsetHeight}px`),
    ).observe(container);
  }

  show(items, undoable) {
    const length = items.reduce((sum, item) => sum + item.end_s - item.start_s, 0);
    this.container.hidden = !items.length && !undoable;
    this.summary.textContent = `${count(items.length, "span")}${length ? ` · ${clock(length)}` : ""}`;
    this.undo.hidden = !undoable;
    this.clear.hidden = this.export.disabled = !items.length;
    this.empty.hidden = items.length > 0 || this.list.hidden;
    this.#showThumbs(items.slice(0, MOST_THUMBS).map((item) => frameUrl(item.video_id, item.start_s, WIDTH_PX)));
    this.items = items;
    if (!this.list.hidden) this.#showCards();
  }

  #showThumbs(addresses) {
    const shown = [...this.thumbs.children].map((image) => image.getAttribute("src"));
    if (shown.join() === addresses.join()) return;
    this.thumbs.replaceChildren(...addresses.map((src) => h("img", { src, alt: "", width: 64, height: 36 })));
  }

  #showCards() {
    const ids = new Set(this.items.map((item) => item.id));
    for (const [id, card] of this.#cards) {
      if (ids.has(id)) continue;
      card.element.remove();
      this.#cards.delete(id);
    }
    let next = this.list.firstElementChild;
    this.items.forEach((item, place) => {
      if (!this.#cards.has(item.id)) this.#cards.set(item.id, spanCard(item, this.app, this.#of(item.id)));
      const card = this.#cards.get(item.id);
      card.show(item, place, this.items.length);
      if (card.element === next) next = next.nextElementSibling;
      else this.list.insertBefore(card.element, next);
    });
  }

  /** Actions of one card. */
  #of(id) {
    return {
      edit: (changes) => this.actions.edit(id, changes),
      move: (by) => {
        const place = [...this.list.children].findIndex((card) => Number(card.dataset.id) === id) + by;
        if (place >= 0 && place < this.list.children.length) this.#move(id, place);
      },
      remove: () => {
        const card = this.#cards.get(id).element;
        const next = card.nextElementSibling ?? card.previousElementSibling;
        this.actions.remove([id]);
        this.app.announce("Removed. Undo brings it back.");
        (next?.querySelector("[data-remove]") ?? this.undo).focus();
      },
    };
  }

  #move(id, place) {
    const focused = document.activeElement;
    this.actions.move(id, place);
    if (this.list.contains(focused) && !focused.disabled) focused.focus({ preventScroll: true });
    else this.#cards.get(id).element.querySelector("[data-move]:not(:disabled)")?.focus({ preventScroll: true });
    this.#cards.get(id).element.scrollIntoView({ block: "nearest", inline: "nearest" });
    this.app.announce(`Moved to place ${place + 1} of ${this.list.children.length}`);
  }

  #undo() {
    const [first] = this.actions.undo();
    this.app.announce("Brought back");
    const target = this.undo.hidden ? this.#cards.get(first)?.element.querySelector("[data-remove]") : this.undo;
    (this.list.hidden ? (this.undo.hidden ? this.toggle : this.undo) : target)?.focus();
  }

  #clear() {
    this.actions.remove(this.actions.ids());
    this.app.announce("The tray is empty. Undo brings all back.");
    this.undo.focus();
  }

  #open(open) {
    this.list.hidden = !open;
    if (open) this.#showCards();
    this.toggle.setAttribute("aria-expanded", String(open));
    this.empty.hidden = !open || this.items.length > 0;
  }
}
