// Only what the page can do without: its figures stay current, and its lines can be copied by a button.
"use strict";
(() => {
  const every = 10000;
  const address = document.body.dataset.figures;

  const show = (figures) => {
    for (const place of document.querySelectorAll("[data-live]")) {
      const text = figures[place.dataset.live];
      if (text !== undefined && place.textContent !== text) place.textContent = text;
    }
    for (const bar of document.querySelectorAll("[data-bar]")) {
      const width = figures[bar.dataset.bar];
      if (width !== undefined) bar.setAttribute("width", width);
    }
    for (const place of document.querySelectorAll("[data-live-state]")) {
      const state = figures[`${place.dataset.liveState}.state`];
      if (state !== undefined) place.dataset.state = state;
    }
  };

  const refresh = async () => {
    if (document.hidden) return;
    try {
      const answer = await fetch(address, { cache: "no-store" });
      if (answer.ok) show(await answer.json());
    } catch {
      // It is asked again soon.
    }
  };
  setInterval(refresh, every);
  document.addEventListener("visibilitychange", refresh);

  const copied = async (code) => {
    if (navigator.clipboard !== undefined) return navigator.clipboard.writeText(code.textContent);
    // Browsers give no clipboard to pages that come without TLS, but let what is selected be copied.
    getSelection().selectAllChildren(code);
    if (!document.execCommand("copy")) throw new Error("refused");
    return undefined;
  };

  const spoken = document.getElementById("spoken");
  for (const button of document.querySelectorAll("button.copy")) {
    const line = button.parentElement.querySelector("code");
    const client = document.getElementById(button.getAttribute("aria-describedby")).textContent;
    button.hidden = false;
    button.addEventListener("click", async () => {
      try {
        await copied(line);
        button.textContent = "Copied";
        spoken.textContent = `The line for ${client} is copied.`;
      } catch {
        getSelection().selectAllChildren(line);
        button.textContent = "Selected";
        spoken.textContent = `The line for ${client} is selected; copy it by the keyboard.`;
      }
      setTimeout(() => { button.textContent = "Copy"; }, 2000);
    });
  }
})();
