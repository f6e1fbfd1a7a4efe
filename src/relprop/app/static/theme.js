/* The chosen theme, before anything is painted; without a choice the system's holds. */
try {
  const theme = localStorage.getItem("relprop.theme");
  if (theme === "light" || theme === "dark") document.documentElement.dataset.theme = theme;
} catch {
  /* Storage that is closed to the page holds no choice. */
}
