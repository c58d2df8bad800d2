(() => {
  try {
    const stored = localStorage.getItem("gleaner-theme");
    if (stored === "light" || stored === "dark") document.documentElement.dataset.theme = stored;
  } catch { /* storage may be closed to file pages; the system's theme is used */ }
})();
