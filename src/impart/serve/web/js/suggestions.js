// Suggestions below the search box: recent queries of this browser, and taught names (ARIA combobox).

import { fill, h, icon, recall, remember } from "./dom.js";

const MOST = 8;
const KEPT = 30;
const NAMES_FRESH_MS = 5_000;

/** Keep a query for later. */
export function rememberQuery(text) {
  const rest = recall("recent", []).filter((one) => one.toLowerCase() !== text.toLowerCase());
  remember("recent", [text, ...rest].slice(0, KEPT));
}

export class Suggestions {
  #api;
  #input;
  #list;
  #onchoose;
  #active = -1;
  #names = { at: -Infinity, values: [] };

  /**
   * @param {Object} api js/api.js
   * @param {HTMLInputElement} input
   * @param {(text: string) => void} onchoose
   */
  constructor(api, input, onchoose) {
    this.#api = api;
    this.#input = input;
    this.#onchoose = onchoose;
    this.#list = h("ul", { id: "suggestions", class: "suggestions", role: "listbox", "aria-label": "Suggestions", hidden: true });
    input.setAttribute("role", "combobox");
    input.setAttribute("aria-autocomplete", "list");
    input.setAttribute("aria-controls", "suggestions");
    input.setAttribute("aria-expanded", "false");
    input.addEventListener("input", () => this.open());
    input.addEventListener("click", () => this.open());
    input.addEventListener("blur", () => this.close());
  }

  get element() {
    return this.#list;
  }

  get isOpen() {
    return !this.#list.hidden;
  }

  /** Taught names; asked again after some seconds, none where the server cannot tell. */
  async names() {
    if (performance.now() - this.#names.at > NAMES_FRESH_MS) {
      this.#names.at = performance.now();
      try {
        const answer = await this.#api.get("/names");
        this.#names.values = answer.names.map((one) => one.name ?? one);
      } catch {
        this.#names.values = [];
      }
    }
    return this.#names.values;
  }

  async open() {
    const text = this.#input.value.trim().toLowerCase();
    const lastWord = text.split(/\s+/).at(-1);
    const recent = recall("recent", []).filter((one) => one.toLowerCase().includes(text) && one.toLowerCase() !== text);
    const names = (await this.names()).filter((one) => !lastWord || one.toLowerCase().startsWith(lastWord));
    if (document.activeElement !== this.#input || text !== this.#input.value.trim().toLowerCase()) return;
    const choices = [
      ...names.slice(0, 3).map((name) => ({ kind: "name", glyph: "names", text: name, value: completed(this.#input.value, name) })),
      ...recent.map((query) => ({ kind: "recent query", glyph: "clock", text: query, value: query })),
    ].slice(0, MOST);
    fill(this.#list, choices.map((choice, number) => this.#option(choice, number)));
    this.#active = -1;
    this.#input.removeAttribute("aria-activedescendant");
    this.#show(choices.length > 0);
  }

  close() {
    this.#show(false);
  }

  /** Handle a key of the input; true where it was for the list. */
  key(event) {
    if (!this.isOpen) return false;
    const options = [...this.#list.children];
    if (event.key === "ArrowDown" || event.key === "ArrowUp") {
      const step = event.key === "ArrowDown" ? 1 : -1;
      if (this.#active + step >= options.length || this.#active + step < -1) {
        this.close();
        return false; // beyond the list: the page goes on to the results
      }
      this.#active += step;
      options.forEach((option, number) => option.setAttribute("aria-selected", String(number === this.#active)));
      if (this.#active < 0) this.#input.removeAttribute("aria-activedescendant");
      else {
        this.#input.setAttribute("aria-activedescendant", options[this.#active].id);
        options[this.#active].scrollIntoView({ block: "nearest" });
      }
      return true;
    }
    if (event.key === "Escape") {
      this.close();
      return true;
    }
    if (event.key === "Enter" && this.#active >= 0) {
      options[this.#active].click();
      return true;
    }
    return false;
  }

  #option({ kind, glyph, text, value }, number) {
    return h(
      "li",
      {
        role: "option",
        id: `suggestion-${number}`,
        "aria-selected": "false",
        onmousedown: (event) => event.preventDefault(), // the box keeps the focus
        onclick: () => {
          this.close();
          this.#onchoose(value);
        },
      },
      icon(glyph),
      h("span", { class: "suggestion-text" }, text),
      h("span", { class: "soft" }, kind),
    );
  }

  #show(open) {
    this.#list.hidden = !open;
    this.#input.setAttribute("aria-expanded", String(open));
    if (!open) this.#input.removeAttribute("aria-activedescendant");
  }
}

function completed(typed, name) {
  return /\s/.test(typed.trim()) ? typed.replace(/\S*$/, name) : name;
}
