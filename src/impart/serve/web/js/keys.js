// Keys: from the search box to hits and back, and single keys for the hit or the player that has the focus.

import { fill, h, iconButton, recall, remember } from "./dom.js";
import { ACTIONS } from "./player/actions.js";

const LIST = [
  [["/", "Ctrl K"], "Search box"],
  [["↓"], "From the box to the hits"],
  [["←", "→"], "Moment before, after"],
  [["↑", "↓"], "Hit above, below"],
  [["Enter"], "Play the moment"],
  [["Space"], "Play, pause"],
  [["s"], "More like this"],
  [["w"], "Why this"],
  [["a"], "Add to the tray"],
  [["t"], "This is … (teach a name)"],
  [[",", "."], "One frame back, on"],
  [["[", "]"], "Begin, end the span here"],
  [["l"], "Loop"],
  [["m"], "Mute"],
  [["f"], "Full screen"],
  [["Esc"], "Close the player or the panel"],
  [["?"], "This list"],
];
const PLAYER_KEYS = {
  ",": (player) => player.step(-1),
  ".": (player) => player.step(1),
  "[": (player) => player.bound("start_s"),
  "]": (player) => player.bound("end_s"),
  l: (player) => player.toggleLoop(),
  m: (player) => player.toggleMute(),
  f: (player) => player.toggleFull(),
};
const ACTION_KEYS = Object.fromEntries(Object.values(ACTIONS).filter(({ key }) => key).map((action) => [action.key, action]));

/** Listen to keys. */
export function listenToKeys(app, searchBox) {
  const dialog = keysDialog();
  document.body.append(dialog);
  addEventListener("keydown", (event) => {
    if (event.defaultPrevented || dialog.open) return;
    const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
    if (key === "k" && (event.ctrlKey || event.metaKey) && !event.shiftKey && !event.altKey) {
      event.preventDefault();
      searchBox.focus();
      return;
    }
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (handle(key, event.target)) event.preventDefault();
  });

  function handle(key, target) {
    if (key === "Escape") return escape(target);
    if (isTyping(target)) return false;
    if (recall("keys", true) && key === "/") return searchBox.focus() ?? true;
    if (recall("keys", true) && key === "?") return dialog.showModal() ?? true;
    const card = target.closest?.(".card");
    const inPlayer = app.player.contains(target);
    if (card && key.startsWith("Arrow")) return move(card, target, key, searchBox);
    if (key === " ") return space(card, target, inPlayer);
    if (app.player.isOpen && key in PLAYER_KEYS && (inPlayer || card || target === document.body)) return PLAYER_KEYS[key](app.player) ?? true;
    if (key in ACTION_KEYS && (inPlayer || card)) return ACTION_KEYS[key].run(app, inPlayer ? app.player.span : spanOf(card, target)) ?? true;
    return false;
  }

  function space(card, target, inPlayer) {
    const open = app.player.isOpen && (inPlayer || target === document.body || (card && target.matches("[data-play]") && app.player.shows(card.dataset.video) && isOpenMoment(target)));
    if (!open || (inPlayer && target.matches("button, select, input"))) return false;
    app.player.toggle();
    return true;
  }

  function isOpenMoment(target) {
    const { start_s, end_s } = app.player.span;
    return target.moment.start_s <= end_s && target.moment.end_s >= start_s;
  }

  function escape(target) {
    if (document.fullscreenElement || isTyping(target)) return false;
    if (target.closest?.("#panel") || (app.panel && !app.player.isOpen)) app.closePanel();
    else if (app.player.isOpen) app.player.dismiss();
    else return false;
    return true;
  }

  return () => dialog.showModal();
}

function spanOf(card, target) {
  const moment = target.moment ?? card.hit;
  return { ...card.hit, start_s: moment.start_s, end_s: moment.end_s, at_s: moment.best_s ?? moment.start_s };
}

function isTyping(target) {
  return target instanceof Element && target.matches("input:not([type=range]):not([type=checkbox]), textarea, select, [contenteditable]");
}

/** Left and right go through all moments in order; up and down go to the card above and below. */
function move(card, target, key, searchBox) {
  const all = [...document.querySelectorAll("#results [data-play]")].filter((one) => one.offsetParent !== null);
  if (key === "ArrowLeft" || key === "ArrowRight") {
    const here = all.indexOf(target.closest("[data-play]") ?? card.querySelector("[data-play]"));
    const next = all[here + (key === "ArrowRight" ? 1 : -1)];
    return go(next);
  }
  const box = card.getBoundingClientRect();
  const middle = box.left + box.width / 2;
  const down = key === "ArrowDown";
  let best = null;
  for (const other of document.querySelectorAll("#results .card")) {
    const { top, left, width } = other.getBoundingClientRect();
    const distance = down ? top - box.top : box.top - top;
    if (!width || distance < 8) continue;
    const cost = distance * 1000 + Math.abs(left + width / 2 - middle);
    if (!best || cost < best.cost) best = { other, cost };
  }
  if (best) return go(best.other.querySelector("[data-play]"));
  if (!down) searchBox.focus();
  return true;
}

function go(button) {
  if (!button) return true;
  button.focus({ preventScroll: true });
  button.closest(".card").scrollIntoView({ block: "nearest" });
  return true;
}

function keysDialog() {
  const dialog = h("dialog", { "aria-labelledby": "keys-title" });
  const box = h("input", { type: "checkbox", checked: recall("keys", true), onchange: (event) => remember("keys", event.target.checked) });
  fill(dialog, h("div", { class: "dialog-head" }, h("h2", { id: "keys-title" }, "Keys"), iconButton("close", "Close", () => dialog.close(), { class: "button icon plain" })),
    h("dl", { class: "keys" }, LIST.map(([keys, text]) => [h("dt", {}, keys.map((key) => [h("kbd", {}, key), " "])), h("dd", {}, text)])),
    h("label", { class: "check" }, box, "/ and ? work everywhere on the page"));
  dialog.addEventListener("click", (event) => {
    if (event.target === dialog) dialog.close();
  });
  return dialog;
}
