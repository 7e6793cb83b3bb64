// Reference sets: which is in force, and the switch to another.

import { get, request } from "../api.js";
import { h } from "../dom.js";
import { confirm } from "../parts/dialog.js";
import { load } from "../parts/loading.js";
import { count } from "../parts/words.js";

export const title = "Reference sets";

const ASK_MS = 1500;

/** Show the reference sets; also a part of the index panel. */
export function mount(container, app) {
  const place = h("div", { class: "flow" });
  container.replaceChildren(place);
  let timer = 0;
  let closed = false;
  const show = async (quiet) => {
    const answer = await load(
      place,
      "reference sets",
      async () => ((await get("/index")).exists ? get("/references") : null),
      (found) => (found ? drawn(found, choose) : h("p", { class: "soft" }, "There are none until a file is indexed.")),
      { quiet },
    );
    if (answer) later(answer);
  };
  const later = (answer) => {
    clearTimeout(timer);
    if (!closed && answer.switching_to !== null) timer = setTimeout(() => show(true), ASK_MS);
  };

  async function choose(set, field, told, discard = false) {
    field.disabled = true;
    told.textContent = `Switching to ${set.name}: the neighbours of all frames are searched …`;
    try {
      const answer = await request("PUT", "/references/current", { json: { id: set.id, discard } });
      if (answer.switching_to === null) app.toast(`In force: ${set.name}.`, "good");
    } catch (error) {
      if (error.code === "set_would_be_lost") {
        const sure = await confirm({ title: "The set in force would be lost", text: error.message, action: "Switch, and lose it" });
        if (sure) return choose(set, field, told, true);
      } else app.toast(error.message, "bad");
    }
    return show(true);
  }

  show(false);
  return {
    refresh: () => show(true),
    unmount: () => {
      closed = true;
      clearTimeout(timer);
    },
  };
}

function drawn({ sets, current, switching_to: next, problem, left_out: leftOut }, choose) {
  const told = h("p", { class: "soft", role: "status" }, next === null ? "" : "A switch goes on: the neighbours of all frames are searched …");
  const chosen = next ?? current;
  const field = h("fieldset", { class: "choices one", disabled: next !== null }, h("legend", { class: "unseen" }, "Reference set in force"));
  field.append(
    ...sets.map((set) =>
      h(
        "label",
        { class: "choice" },
        h("input", { type: "radio", name: "references", checked: set.id === chosen, onchange: () => choose(set, field, told) }),
        h(
          "span",
          {},
          h("b", {}, set.name),
          h("span", { class: "soft" }, [set.pairs ? count(set.pairs, "pair") : null, set.settings].filter(Boolean).join(", ")),
        ),
      ),
    ),
  );
  return [
    h("p", { class: "soft" }, "Pairs of image and text that help the model to tell what a frame shows."),
    field,
    told,
    problem ? h("p", { class: "note bad" }, `The last switch failed: ${problem}`) : null,
    leftOut.length
      ? h(
          "ul",
          { class: "plain-list failures" },
          leftOut.map((one) => h("li", {}, h("b", {}, one.name), h("p", {}, one.reason))),
        )
      : null,
  ];
}
