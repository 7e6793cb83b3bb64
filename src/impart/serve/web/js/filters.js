// Filters as chips: kind, folder, date, length, name, and how hits are grouped. Each change searches again.

import { fill, h, icon } from "./dom.js";
import { filtered, lengthText, unfiltered } from "./query.js";

const KINDS = [["", "Videos and photos"], ["video", "Videos"], ["photo", "Photos"]];
const LENGTHS = [["", "Any length"], ["-10", "Up to 10 s"], ["10-60", "10 s to 1 min"], ["60-600", "1 to 10 min"], ["600-3600", "10 min to 1 h"], ["3600-", "Over 1 h"]];
const GROUPS = [["", "By video"], ["moment", "By moment"], ["scene", "By scene"]];

/**
 * Make the chips.
 *
 * @param {Object} app
 * @param {{names: () => Promise<string[]>}} taught
 * @returns {{element: HTMLElement, show: (state: Object) => void, renew: () => Promise<void>}}
 */
export function filterChips(app, taught) {
  const change = (values) => app.state.patch({ ...values, hit: null, all: null });
  const kind = chip("Kind", KINDS, (value) => change({ kind: value }));
  const folder = chip("Folder", [["", "All folders"]], (value) => change({ folder: value }));
  const length = chip("Length", LENGTHS, (value) => {
    const [min, max] = value.split("-");
    change({ min: min || null, max: max || null });
  });
  const name = chip("Name", [["", "Any name"]], (value) => change({ name: value }));
  const group = chip("Grouping", GROUPS, (value) => change({ group: value }));
  const date = dateChip(change);
  const clear = h("button", { type: "button", class: "button chip plain", hidden: true, onclick: () => app.state.set(unfiltered({ ...app.state.value, hit: null, all: null })) }, icon("close"), "Clear filters");
  let state = {};
  name.hidden = true;

  const fillLate = async () => {
    const folders = await app.api.get("/folders").then((answer) => answer.folders, () => []);
    options(folder, [["", "All folders"], ...folders.map((one) => [one.folder, `${shorten(one.folder)} (${one.videos})`])], state.folder);
    await fillNames();
  };
  const fillNames = async () => {
    options(name, [["", "Any name"], ...(await taught.names()).map((one) => [one, one])], state.name);
    name.hidden = name.options.length < 2; // until one is taught
  };
  name.addEventListener("focus", fillNames);
  fillLate();

  const show = (given) => {
    state = given;
    choose(kind, state.kind);
    choose(folder, state.folder);
    choose(length, state.min || state.max ? `${state.min ?? ""}-${state.max ?? ""}` : "", lengthLabel(state.min, state.max));
    choose(name, state.name);
    if (state.name) name.hidden = false;
    choose(group, state.group === "video" ? "" : state.group);
    date.show(state);
    clear.hidden = !filtered(state);
  };
  return { element: h("div", { class: "filters", role: "group", "aria-label": "Filters" }, kind, folder, date.element, length, group, name, clear), show, renew: fillLate };
}

function chip(label, choices, onchange) {
  const element = h("select", { class: "button chip", "aria-label": label, title: label, onchange: () => onchange(element.value || "") });
  options(element, choices, "");
  return element;
}

function options(select, choices, value) {
  fill(select, choices.map(([key, text]) => h("option", { value: key }, text)));
  choose(select, value);
}

function choose(select, value, label = value) {
  const wanted = value || "";
  if (![...select.options].some((option) => option.value === wanted)) select.append(h("option", { value: wanted }, label));
  select.value = wanted;
  select.dataset.set = String(wanted !== "");
}

function lengthLabel(min, max) {
  return [min && `from ${lengthText(Number(min))}`, max && `up to ${lengthText(Number(max))}`].filter(Boolean).join(" ");
}

/** Two fields in a pop-over: recorded from, to. */
function dateChip(change) {
  const field = (label) => h("input", { class: "field", type: "date", "aria-label": label });
  const since = field("Recorded from");
  const until = field("Recorded to");
  const text = h("span", {}, "Any date");
  const button = h("button", { type: "button", class: "button chip", "aria-haspopup": "dialog", popoverTargetElement: null }, text, icon("more"));
  const apply = () => {
    popover.hidePopover();
    change({ since: since.value || null, until: until.value || null });
  };
  const clear = () => {
    since.value = until.value = "";
    apply();
  };
  const popover = h("div", { class: "popover", popover: "auto", role: "dialog", "aria-label": "Date of recording", onkeydown: (event) => {
    if (event.key !== "Enter" || event.target.tagName !== "INPUT") return;
    event.preventDefault();
    apply();
  } }, h("label", {}, "From", since), h("label", {}, "To", until), h("div", { class: "popover-buttons" },
    h("button", { type: "button", class: "button", onclick: clear }, "Any date"), h("button", { type: "button", class: "button main", onclick: apply }, "Apply")));
  button.popoverTargetElement = popover;
  popover.addEventListener("toggle", (event) => {
    if (event.newState !== "open") return;
    const box = button.getBoundingClientRect();
    popover.style.top = `${box.bottom + 6}px`;
    popover.style.left = `${Math.max(8, Math.min(box.left, innerWidth - popover.offsetWidth - 8))}px`;
    since.focus();
  });
  const show = (state) => {
    since.value = /^\d{4}-\d\d-\d\d$/.test(state.since ?? "") ? state.since : "";
    until.value = /^\d{4}-\d\d-\d\d$/.test(state.until ?? "") ? state.until : "";
    text.textContent = state.since || state.until ? `${state.since ?? "…"} to ${state.until ?? "…"}` : "Any date";
    button.dataset.set = String(Boolean(state.since || state.until));
  };
  return { element: h("span", { class: "chip-date" }, button, popover), show };
}

/** The last two parts of a folder. */
function shorten(folder) {
  const parts = folder.split(/[/\\]/).filter(Boolean);
  return parts.length > 2 ? `…/${parts.slice(-2).join("/")}` : folder;
}
