// What can be done with a hit or with what plays: buttons of cards and of the player, and their keys.

import { clock, h, iconButton } from "../dom.js";
import { FILTERS, formatMoment } from "../query.js";
import { format } from "../state.js";

/**
 * What each action does with a span: `{video_id, name, kind, start_s, end_s, at_s}`, or a hit with `at_s`.
 * The keys are those of js/keys.js.
 */
export const ACTIONS = {
  add: {
    label: "Add to the tray", glyph: "add", key: "a",
    run: (app, { video_id, name, kind, start_s, end_s }) => {
      const span = { video_id, name, kind, start_s, end_s, label: app.state.value.q ?? "" };
      if (!app.tray) return app.toast("The tray is not available.", "bad");
      if (app.tray.has(span)) return app.toast("This span is in the tray already.");
      app.tray.add(span);
      app.announce(`Added to the tray: ${name}`);
    },
  },
  like: {
    label: "More like this", glyph: "like", key: "s",
    run: (app, { video_id, at_s }) => {
      const state = app.state.value;
      const kept = Object.fromEntries([...FILTERS, "group"].map((part) => [part, state[part]]));
      app.state.set({ ...kept, like: formatMoment({ video_id, start_s: at_s }) });
    },
  },
  why: { label: "Why this", glyph: "why", key: "w", run: (app, span) => app.openPanel("why", span) },
  teach: {
    label: "This is … (teach a name)", text: "This is …", glyph: "teach", key: "t",
    run: (app, { video_id, at_s }) => app.openPanel("names", { teach: { video_id, at_s } }),
  },
  scenes: { label: "Scenes of this video", text: "Scenes", glyph: "scenes", videos: true, run: (app, { video_id, at_s, name }) => app.openPanel("scenes", { video_id, at_s, name }) },
  link: {
    label: "Copy the link to this moment", text: "Copy link", glyph: "link",
    run: (app, span) => copy(app, location.origin + location.pathname + format({ ...app.state.value, hit: formatMoment(span) }), "The link"),
  },
  time: { label: "Copy the time", text: "Copy time", glyph: "clock", videos: true, playerOnly: true, run: (app, { at_s }) => copy(app, clock(at_s, 3), "The time") },
};

/**
 * Make the buttons.
 *
 * @param {Object} app
 * @param {() => Object} span what they act on, asked at each click
 * @param {{compact?: boolean, kind?: string}} options compact: icons alone, for cards
 */
export function actionButtons(app, span, { compact = false } = {}) {
  const listed = Object.entries(ACTIONS).filter(([, action]) => !(compact && action.playerOnly) && !(action.videos && span().kind === "photo"));
  return h("div", { class: compact ? "actions compact" : "actions", role: "group", "aria-label": "Actions" }, listed.map(([name, { label, text, glyph, run, key }]) =>
    iconButton(glyph, key ? `${label} (${key})` : label, () => run(app, span()), { text: compact ? undefined : (text ?? label), class: compact ? "button icon" : "button", "data-action": name })));
}

async function copy(app, text, what) {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    const area = h("textarea", { value: text, class: "unseen" });
    document.body.append(area); // pages without TLS have no clipboard API
    area.select();
    const done = document.execCommand("copy");
    area.remove();
    if (!done) return app.toast(`Copy it by hand: ${text}`);
  }
  app.toast(`${what} is on the clipboard: ${text.length > 60 ? `${text.slice(0, 57)}…` : text}`, "good");
}
