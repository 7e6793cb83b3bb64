// A photo in the player: it fits the stage, and can be magnified and moved.

import { frameUrl } from "../api.js";
import { h, iconButton } from "../dom.js";

const WIDTH = 1280;
const STEPS = [1, 1.5, 2, 3, 4];

/** Make the stage of a photo and its buttons. */
export function photoStage({ video_id, name }) {
  let step = 0;
  const image = h("img", { class: "photo", src: frameUrl(video_id, 0, WIDTH), alt: name, draggable: false });
  const stage = h("div", { class: "stage zoomable", tabIndex: 0, role: "group", "aria-label": `${name}: plus and minus magnify, arrows move` }, image);
  const zoom = (change) => {
    step = Math.max(0, Math.min(STEPS.length - 1, step + change));
    const middle = { x: (stage.scrollLeft + stage.clientWidth / 2) / stage.scrollWidth, y: (stage.scrollTop + stage.clientHeight / 2) / stage.scrollHeight };
    image.style.width = image.style.height = `${100 * STEPS[step]}%`;
    stage.scrollLeft = middle.x * stage.scrollWidth - stage.clientWidth / 2;
    stage.scrollTop = middle.y * stage.scrollHeight - stage.clientHeight / 2;
    smaller.disabled = step === 0;
    larger.disabled = step === STEPS.length - 1;
  };
  const smaller = iconButton("zoom-out", "Smaller", () => zoom(-1), { disabled: true });
  const larger = iconButton("zoom-in", "Larger", () => zoom(1));
  image.addEventListener("dblclick", () => zoom(step ? -step : 2));
  stage.addEventListener("keydown", (event) => {
    const change = { "+": 1, "=": 1, "-": -1 }[event.key];
    if (!change) return;
    event.preventDefault();
    zoom(change);
  });
  stage.addEventListener("pointerdown", (event) => {
    if (event.pointerType !== "mouse" || step === 0) return;
    stage.setPointerCapture(event.pointerId);
    const move = ({ movementX, movementY }) => stage.scrollBy(-movementX, -movementY);
    stage.addEventListener("pointermove", move);
    stage.addEventListener("pointerup", () => stage.removeEventListener("pointermove", move), { once: true });
  });
  return { stage, buttons: [smaller, larger] };
}
