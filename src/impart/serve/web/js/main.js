// Start of the page.

import { App } from "./app.js";
import { h, icon, iconButton } from "./dom.js";
import { listenToKeys } from "./keys.js";
import { Player } from "./player.js";
import { Results } from "./results.js";
import { SearchBox } from "./searchbox.js";

const PANELS = { names: "Names", photos: "Photos", duplicates: "Duplicates", index: "Index" };
const THEMES = ["system", "light", "dark"];

const app = new App();
const top = document.querySelector(".top");

function panelButton([name, text]) {
  const toggle = () => (app.panel === name ? app.closePanel() : app.openPanel(name));
  const props = { type: "button", class: "button plain", title: text, "aria-label": text, "data-panel": name, "aria-expanded": "false" };
  return h("button", { ...props, onclick: toggle }, icon(name), h("span", {}, text));
}

function themeButton() {
  const show = (theme) => {
    if (theme === "system") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = theme;
    button.replaceChildren(icon(`theme-${theme}`));
    button.title = `Colours: ${theme}. Change`;
    button.setAttribute("aria-label", button.title);
  };
  const current = () => document.documentElement.dataset.theme ?? "system";
  const change = () => {
    const next = THEMES[(THEMES.indexOf(current()) + 1) % THEMES.length];
    try {
      localStorage.setItem("impart.theme", next);
    } catch {
      // without storage the choice lasts until the page is loaded again
    }
    show(next);
    redraw();
    app.announce(`Colours: ${next}`);
  };
  const button = iconButton("theme-system", "", change, { class: "button icon plain" });
  show(current());
  return button;
}

/** Draw again what does not take the colours from the style sheets. */
function redraw() {
  app.results.redraw();
  app.player.redraw();
}

async function mountTray() {
  const { Tray } = await import("./tray.js");
  app.tray = new Tray();
  app.tray.mount(document.querySelector("#tray"), app);
}

app.player = new Player(app);
app.results = new Results(app, document.querySelector("#results"));
const searchBox = (app.searchBox = new SearchBox(app, document.querySelector("#search")));
const showKeys = listenToKeys(app, searchBox);
document.querySelector("#panels").append(...Object.entries(PANELS).map(panelButton), themeButton(), iconButton("keys", "Keys (?)", showKeys, { class: "button icon plain" }));
document.querySelector(".brand").addEventListener("click", (event) => {
  if (event.ctrlKey || event.metaKey || event.shiftKey) return;
  event.preventDefault();
  app.state.set({});
  searchBox.focus();
});
new ResizeObserver(() => {
  const covers = getComputedStyle(top).position === "sticky";
  document.documentElement.style.setProperty("--top", `${covers ? top.offsetHeight : 0}px`);
}).observe(top);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
app.results.show(app.state.value, { moved: true });
mountTray().catch(() => app.toast("The tray cannot be shown.", "bad"));
if (!app.state.value.q && matchMedia("(pointer: fine)").matches) searchBox.focus();
