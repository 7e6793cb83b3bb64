// Start of the page.

import { App } from "./app.js";
import { h, icon, iconButton } from "./dom.js";

const PANELS = { names: "Names", photos: "Photos", duplicates: "Duplicates", index: "Index" };
const THEMES = ["system", "light", "dark"];

const app = new App();

function panelButton([name, text]) {
  const toggle = () => (app.panel === name ? app.closePanel() : app.openPanel(name));
  const props = { type: "button", class: "button plain", title: text, "data-panel": name, "aria-expanded": "false", "aria-controls": "panel" };
  return h("button", { ...props, onclick: toggle }, icon(name), h("span", {}, text));
}

function themeButton() {
  const show = (theme) => {
    if (theme === "system") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = theme;
    const label = `Colours: ${theme}. Change`;
    button.replaceChildren(icon(`theme-${theme}`));
    button.title = label;
    button.setAttribute("aria-label", label);
  };
  const current = () => document.documentElement.dataset.theme ?? "system";
  const button = iconButton("theme-system", "", () => {
    const next = THEMES[(THEMES.indexOf(current()) + 1) % THEMES.length];
    localStorage.setItem("impart.theme", next);
    show(next);
    app.announce(`Colours: ${next}`);
  }, { class: "button icon plain" });
  show(current());
  return button;
}

document.querySelector("#panels").append(...Object.entries(PANELS).map(panelButton), themeButton());
