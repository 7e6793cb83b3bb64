// Reordering by drag, with mouse, pen or touch. The keyboard has buttons.

const EDGE_PX = 48; // of the list, from which it scrolls
const SCROLL_PX = 12;

/**
 * Let the children of a list be dragged by their `[data-grip]`.
 *
 * The neighbours are moved past the dragged element, which itself stays in the document, so that touch goes on.
 *
 * @param {HTMLElement} list
 * @param {function(HTMLElement, number): void} ondrop called with the element and its new place, where it changed
 */
export function dragToReorder(list, ondrop) {
  list.addEventListener("pointerdown", (down) => {
    const grip = down.target.closest("[data-grip]");
    if (!grip || down.button !== 0) return;
    const item = grip.closest("li");
    const order = [...list.children];
    down.preventDefault();
    item.classList.add("dragged");

    const move = (event) => {
      const box = list.getBoundingClientRect();
      if (event.clientX > box.right - EDGE_PX) list.scrollLeft += SCROLL_PX;
      if (event.clientX < box.left + EDGE_PX) list.scrollLeft -= SCROLL_PX;
      if (event.clientY > box.bottom - EDGE_PX) list.scrollTop += SCROLL_PX;
      if (event.clientY < box.top + EDGE_PX) list.scrollTop -= SCROLL_PX;
      const over = [...list.children].find((child) => within(child.getBoundingClientRect(), event));
      if (over && over !== item) put(list, item, [...list.children].indexOf(over));
    };
    const end = (keep) => {
      item.classList.remove("dragged");
      removeEventListener("pointermove", move);
      removeEventListener("pointerup", up);
      removeEventListener("pointercancel", cancel);
      removeEventListener("keydown", key, true);
      const place = [...list.children].indexOf(item);
      const before = order.indexOf(item);
      if (!keep) put(list, item, before);
      else if (place !== before) ondrop(item, place);
    };
    const up = () => end(true);
    const cancel = () => end(false);
    const key = (event) => {
      if (event.key !== "Escape") return;
      event.stopPropagation();
      end(false);
    };
    addEventListener("pointermove", move);
    addEventListener("pointerup", up);
    addEventListener("pointercancel", cancel);
    addEventListener("keydown", key, true);
  });
}

const within = (box, { clientX, clientY }) => clientX >= box.left && clientX <= box.right && clientY >= box.top && clientY <= box.bottom;

function put(list, item, place) {
  for (;;) {
    const at = [...list.children].indexOf(item);
    if (at === place) return;
    if (at < place) list.insertBefore(item.nextElementSibling, item);
    else item.after(item.previousElementSibling);
  }
}
