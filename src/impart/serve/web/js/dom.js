// Elements: built with properties and children, never from HTML text, so that data is never markup.

/**
 * Make an element.
 *
 * Properties that start with `on` are event listeners; `class`, `data-*`, `aria-*`, `role` and other names with a dash
 * are attributes; true and false set or leave out an attribute; the rest are properties of the element.
 *
 * @param {string} tag
 * @param {Object} [props]
 * @param {...(Node|string|number|null|undefined|false|Array)} children
 * @returns {HTMLElement}
 */
export function h(tag, props = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(props ?? {})) {
    if (value === null || value === undefined) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "class") element.className = value;
    else if (name.includes("-") || name === "role" || name === "for" || name === "list") {
      if (value !== false) element.setAttribute(name, value === true ? "" : String(value));
    } else element[name] = value;
  }
  element.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

/** Replace what an element contains. */
export function fill(element, ...children) {
  element.replaceChildren(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

/** Write seconds as 1:02:03.4, as short as possible. */
export function clock(seconds, digits = 1) {
  const whole = Math.max(0, Number(seconds) || 0);
  const hours = Math.floor(whole / 3600);
  const minutes = Math.floor(whole / 60) % 60;
  const rest = (whole % 60).toFixed(digits).padStart(digits ? digits + 3 : 2, "0");
  return hours ? `${hours}:${String(minutes).padStart(2, "0")}:${rest}` : `${minutes}:${rest}`;
}

/** Make an icon of `icons.svg`; it says nothing to screen readers. */
export function icon(name) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  const use = document.createElementNS("http://www.w3.org/2000/svg", "use");
  svg.setAttribute("class", "glyph");
  svg.setAttribute("aria-hidden", "true");
  use.setAttribute("href", `/static/icons.svg#${name}`);
  svg.append(use);
  return svg;
}

/** Make a button with an icon; `label` is its name, and shown where `text` is given. */
export function iconButton(name, label, onclick, { text, ...props } = {}) {
  return h(
    "button",
    { type: "button", class: text ? "button" : "button icon", title: label, "aria-label": text ? null : label, onclick, ...props },
    icon(name),
    text ? h("span", {}, text) : null,
  );
}

/** Read what this browser keeps under a name; `fallback` where there is nothing or no storage. */
export function recall(name, fallback) {
  try {
    return JSON.parse(localStorage.getItem(`impart.${name}`)) ?? fallback;
  } catch {
    return fallback;
  }
}

/** Keep a value in this browser. */
export function remember(name, value) {
  try {
    localStorage.setItem(`impart.${name}`, JSON.stringify(value));
  } catch {
    // private windows may have no storage: the page works without
  }
}
