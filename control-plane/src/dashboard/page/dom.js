// Elements from JavaScript: text only, never markup, so that nothing that is shown can become part of the page.

const SVG = "http://www.w3.org/2000/svg";

/** An HTML element. */
export const h = (tag, attributes, ...children) => fill(document.createElement(tag), attributes, children);
/** An SVG element. */
export const s = (tag, attributes, ...children) => fill(document.createElementNS(SVG, tag), attributes, children);

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat(3).filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

/** Shows `children` in place of what was there; whoever had the keyboard keeps it, scrolled parts stay where they were. */
export function show(container, ...children) {
  const key = document.activeElement?.dataset?.key;
  const scrolled = [...container.querySelectorAll("[data-scroll]")].map((part) => [part.dataset.scroll, part.scrollLeft]);
  container.replaceChildren(...children.flat(3).filter(Boolean));
  for (const [name, left] of scrolled) {
    const part = container.querySelector(`[data-scroll="${CSS.escape(name)}"]`);
    if (part) part.scrollLeft = left;
  }
  if (key) container.querySelector(`[data-key="${CSS.escape(key)}"]`)?.focus({ preventScroll: true });
}

/** What is said when there is nothing to show. */
export const empty = (title, text) => h("p", { class: "empty" }, h("strong", {}, title), text);
