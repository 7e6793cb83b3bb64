// State of the page: all of it is in the URL, so that reload, back, forward and a copied address work.
// The place of the scroll, and how many results were shown, are kept beside each entry of the browser's history.

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
  const text = params.toString().replaceAll("%40", "@");
  return text ? `?${text}` : location.pathname;
}

/** Keep the state, tell listeners of changes, and follow the browser's back and forward. */
export class State {
  #listeners = [];

  constructor() {
    this.value = parse(location.search);
    history.scrollRestoration = "manual";
    addEventListener("popstate", () => {
      this.value = parse(location.search);
      this.#tell({ moved: true });
    });
  }

  /**
   * Call `listener(state, {moved})` after each change; `moved`: the browser went back or forward, so that the place of
   * the scroll is to be restored.
   */
  on(listener) {
    this.#listeners.push(listener);
  }

  /** Set all values; a new entry of the history unless `replace`. */
  set(value, { replace = false } = {}) {
    const address = format(value);
    if (address === (location.search || location.pathname)) return;
    if (replace) history.replaceState(history.state, "", address);
    else history.pushState(null, "", address);
    this.value = parse(location.search);
    this.#tell({ moved: false });
  }

  /** Change some values; null removes one. */
  patch(changes, options) {
    this.set({ ...this.value, ...changes }, options);
  }

  /** Keep values beside the present entry of the history, such as the place of the scroll. */
  keep(values) {
    history.replaceState({ ...history.state, ...values }, "");
  }

  /** What was kept beside the present entry. */
  get kept() {
    return history.state ?? {};
  }

  #tell(change) {
    for (const listener of this.#listeners) listener(this.value, change);
  }
}
