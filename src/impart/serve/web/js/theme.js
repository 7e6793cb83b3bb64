// The chosen colours, set before the first paint; a classic script, since modules run after it.
(() => {
  let chosen = null;
  try {
    chosen = localStorage.getItem("impart.theme");
  } catch {
    // without storage the system decides
  }
  if (chosen === "light" || chosen === "dark") document.documentElement.dataset.theme = chosen;
})();
