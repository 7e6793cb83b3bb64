// State of the page: all of it is in the URL, so that reload, back, forward and a copied address work.

const LISTS = ["not"];

/** Read the state of an address: names and texts; `not` is a list. */
export function parse(search) {
  const state = {};
  for (const [name, value] of new URLSearchParams(search)) {
    if (LISTS.includes(name)) (state[name] ??= []).push(value);
    else state[name] = value;
  }
  return state;
}

/** Write a state as a query string, without empty values. */
export function format(state) {
  const params = new URLSearchParams();
  for (const [name, value] of Object.entries(state)) {
    for (const one of Array.isArray(value) ? value : [value]) {
      if (one !== null && one !== undefined && one !== "") params.append(name, one);
    }
  }
  const text = params.toString();
  return text ? `?${text}` : location.pathname;
}

/** Keep the state, tell listeners of changes, and follow the browser's back and forward. */
export class State {
  #listeners = [];

  constructor() {
    this.value = parse(location.search);
    addEventListener("popstate", () => {
      this.value = parse(location.search);
      this.#tell();
    });
  }

  /** Call `listener(state)` after each change. */
  on(listener) {
    this.#listeners.push(listener);
  }

  /** Set all values; a new entry of the history unless `replace`. */
  set(value, { replace = false } = {}) {
    const address = format(value);
    if (address === (location.search || location.pathname)) return;
    history[replace ? "replaceState" : "pushState"](null, "", address);
    this.value = parse(location.search);
    this.#tell();
  }

  /** Change some values; null removes one. */
  patch(changes, options) {
    this.set({ ...this.value, ...changes }, options);
  }

  #tell() {
    for (const listener of this.#listeners) listener(this.value);
  }
}
