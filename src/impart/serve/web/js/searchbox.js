// The search form: text with suggestions, an image, "not" and "then" fields. Enter searches.

import { fill, h, icon, iconButton } from "./dom.js";
import { filterChips } from "./filters.js";
import { asks, keyOf, parseMoment, requestOf } from "./query.js";
import { rememberQuery, Suggestions } from "./suggestions.js";

const WITHIN_S = "20";

export class SearchBox {
  #app;
  #form;
  #input;
  #file;
  #chip; // the query image, or the moment to be like
  #extra; // "not" and "then"
  #suggestions;
  #filters;
  #shown; // key of the state that the fields show

  constructor(app, form) {
    this.#app = app;
    this.#form = form;
    this.#input = h("input", {
      id: "query",
      class: "query",
      type: "text",
      enterKeyHint: "search",
      autocomplete: "off",
      spellcheck: false,
      maxLength: 1000,
      placeholder: "Describe a moment: a dog on a beach",
      "aria-label": "Search by text",
      "aria-keyshortcuts": "/ Control+K",
      onkeydown: (event) => this.#key(event),
    });
    this.#file = h("input", { type: "file", accept: "image/*", hidden: true, onchange: () => this.#picked() });
    this.#chip = h("span", { class: "query-image", hidden: true });
    this.#extra = h("div", { class: "extra" });
    this.#suggestions = new Suggestions(app.api, this.#input, (text) => {
      this.#input.value = text;
      this.#search();
    });
    this.#filters = filterChips(app, this.#suggestions);
    form.append(
      h("div", { class: "box" }, icon("search"), this.#chip, this.#input, this.#file,
        iconButton("image", "Search by an image: pick a file, or drop or paste one anywhere", () => this.#file.click(), { class: "button icon plain" }),
        h("button", { type: "submit", class: "button main", "aria-label": "Search" }, icon("search"), h("span", {}, "Search")), this.#suggestions.element),
      this.#extra,
      h("div", { class: "chips" },
        h("button", { type: "button", class: "button chip", onclick: () => this.#addNot() }, icon("add"), "Not"),
        h("button", { type: "button", class: "button chip", id: "add-then", onclick: () => this.#addThen() }, icon("add"), "Then"),
        this.#filters.element),
    );
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.#search();
    });
    this.#acceptDrops();
    app.state.on((state) => keyOf(state) !== this.#shown && this.show()); // else what is typed would be lost
    this.show();
  }

  /** Put the focus into the box, with its text selected. */
  focus() {
    this.#input.focus();
    this.#input.select();
  }

  /** Show the state of the page. */
  show() {
    const state = this.#app.state.value;
    this.#shown = keyOf(state);
    this.#input.value = state.q ?? "";
    this.#filters.show(state);
    this.#showChip(state);
    const unwanted = state.not ?? [];
    fill(this.#extra, unwanted.map((text) => this.#notField(text)), state.then ? this.#thenField(state.then, state.within) : null);
    this.#form.querySelector("#add-then").hidden = Boolean(state.then);
  }

  /** Ask for the folders and names again. */
  renew() {
    this.#filters.renew();
  }

  /** Search by an image file. */
  async searchImage(file) {
    if (!file.type.startsWith("image/")) {
      this.#app.toast(`${file.name} is no image: drop a JPEG, PNG, WebP or another image file.`, "bad");
      return;
    }
    const state = { ...this.#read(), image: null, like: null, hit: null, all: null };
    const form = new FormData();
    form.append("request", JSON.stringify(requestOf(state)));
    form.append("image", file);
    this.#app.results.wait();
    try {
      const answer = await this.#app.api.request("POST", "/search", { form });
      const next = { ...state, image: answer.image_id };
      this.#app.results.seed(keyOf(next), answer);
      this.#app.state.set(next);
    } catch (error) {
      this.#app.results.show(this.#app.state.value, { moved: true });
      this.#app.toast(`The image cannot be used: ${error.message}`, "bad");
    }
  }

  /** Read the fields as a state; filters stay as they are. */
  #read() {
    const values = (name) => [...this.#extra.querySelectorAll(`[name=${name}]`)].map((field) => field.value.trim()).filter(Boolean);
    const [then] = values("then");
    const within = values("within")[0];
    return {
      ...this.#app.state.value,
      q: this.#input.value.trim() || null,
      not: values("not"),
      then: then ?? null,
      within: then && within !== WITHIN_S ? within : null,
    };
  }

  #search() {
    this.#suggestions.close();
    const state = { ...this.#read(), hit: null, all: null };
    if (state.q) state.like = null; // a text asks for something new
    if (state.q) rememberQuery(state.q);
    const same = keyOf(state) === keyOf(this.#app.state.value);
    if (asks(state) && same) this.#app.results.show(this.#app.state.value, { again: true });
    this.#app.state.set(state);
  }

  #key(event) {
    if (this.#suggestions.key(event)) event.preventDefault();
    else if (event.key === "ArrowDown" && this.#app.results.focusFirst()) event.preventDefault();
    else if (event.key === "Escape") this.#input.select();
  }

  #showChip(state) {
    const like = parseMoment(state.like);
    const source = like ? this.#app.api.frameUrl(like.video_id, like.start_s, 160) : state.image ? this.#app.api.imageUrl(state.image) : null;
    this.#chip.hidden = source === null;
    if (source === null) {
      this.#chip.replaceChildren();
      return;
    }
    const text = like ? "More like this" : "Image";
    const remove = iconButton("close", `Remove: ${text}`, () => this.#app.state.patch({ like: null, image: null, hit: null, all: null }), { class: "button icon plain" });
    const image = h("img", { src: source, alt: "", width: 40, height: 28, onerror: () => image.remove() });
    fill(this.#chip, image, h("span", { class: "query-image-text" }, text), remove);
  }

  #addNot() {
    this.#extra.prepend(this.#notField(""));
    this.#extra.querySelector("input").focus();
  }

  #addThen() {
    if (!this.#extra.querySelector("[name=then]")) this.#extra.append(this.#thenField("", null));
    this.#form.querySelector("#add-then").hidden = true;
    this.#extra.querySelector("[name=then]").focus();
  }

  #notField(text) {
    const input = h("input", { class: "field", name: "not", value: text, maxLength: 1000, placeholder: "a truck", "aria-label": "Without this" });
    return this.#row("Not", input, null, "Remove this condition");
  }

  #thenField(text, within) {
    const input = h("input", { class: "field", name: "then", value: text, maxLength: 1000, placeholder: "a blue door", "aria-label": "Then this, later in the same video" });
    const most = h("input", { class: "field seconds", name: "within", type: "number", min: "0", max: "86400", step: "any", value: within ?? WITHIN_S, "aria-label": "At most so many seconds later" });
    return this.#row("Then", input, h("span", { class: "within" }, "within", most, "s"), "Remove what follows");
  }

  #row(label, input, more, removeLabel) {
    const row = h("div", { class: "extra-row" }, h("span", { class: "extra-label" }, label), input, more, iconButton("close", removeLabel, () => {
      row.remove();
      this.#form.querySelector("#add-then").hidden = Boolean(this.#extra.querySelector("[name=then]"));
      this.#focusAndSearch();
    }, { class: "button icon plain" }));
    return row;
  }

  #focusAndSearch() {
    this.#input.focus();
    if (asks(this.#app.state.value)) this.#search();
  }

  #picked() {
    const [file] = this.#file.files;
    this.#file.value = "";
    if (file) this.searchImage(file);
  }

  #acceptDrops() {
    const veil = h("div", { class: "drop", hidden: true }, h("p", {}, icon("image"), "Drop an image to search with it"));
    document.body.append(veil);
    const hasFile = (event) => event.dataTransfer?.types.includes("Files");
    // In the capture phase: a panel with a drop zone of its own stops these events.
    addEventListener("dragenter", (event) => (veil.hidden = !hasFile(event) || isTaken(event)), true);
    addEventListener("drop", () => (veil.hidden = true), true);
    addEventListener("dragleave", (event) => {
      if (!event.relatedTarget) veil.hidden = true;
    }, true);
    addEventListener("dragover", (event) => {
      if (hasFile(event)) event.preventDefault();
    });
    addEventListener("drop", (event) => {
      if (!hasFile(event)) return;
      event.preventDefault();
      this.searchImage(event.dataTransfer.files[0]);
    });
    addEventListener("paste", (event) => {
      const file = [...(event.clipboardData?.files ?? [])].find((one) => one.type.startsWith("image/"));
      if (!file) return;
      event.preventDefault();
      this.searchImage(file);
    });
  }
}

/** Whether a part of the page takes dropped files itself, such as images of a name. */
const isTaken = (event) => event.target instanceof Element && event.target.closest(".dropzone") !== null;
