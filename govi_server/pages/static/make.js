// Updates the page while the form is filled in. Without this script the form requests the page again.
"use strict";
(() => {
  const form = document.querySelector(".make");
  if (!form || !window.fetch || !window.AbortController) return;
  const { origin } = form.elements;
  origin.disabled = false;  // the server does not know whether a proxy in front of it uses https
  origin.value = location.origin;
  let request = new AbortController();
  let timer = 0;

  const update = async () => {
    request.abort();
    request = new AbortController();
    const fields = [...new FormData(form)].filter(([, value]) => value);
    const query = String(new URLSearchParams(fields));
    try {
      const response = await fetch(`/make?${query}`, { signal: request.signal, headers: { Accept: "text/html" } });
      if (!response.ok) return;  // a field is incomplete
      const page = new DOMParser().parseFromString(await response.text(), "text/html");
      history.replaceState(null, "", `/make?${String(new URLSearchParams(fields.filter(([name]) => name !== "origin")))}`);
      const found = document.getElementById("found-status"), text = page.getElementById("found-status").textContent;
      if (found.textContent !== text) found.textContent = text;
      for (const id of ["stops", "lines", "directions", "walking", "result"]) {
        const old = document.getElementById(id), part = page.getElementById(id);
        // What was ticked or typed does not change the texts of the form.
        if (!part || (id === "result" ? old.innerHTML === part.innerHTML : old.textContent === part.textContent)) continue;
        const { name, value } = document.activeElement;
        const hadFocus = old.contains(document.activeElement);
        old.replaceWith(part);
        if (hadFocus) [...part.querySelectorAll("input")].find((input) => input.name === name && input.value === value)?.focus();
        if (id !== "result") continue;
        const texts = [...part.querySelectorAll("h2, p > a, :scope > .soft")].map((node) => node.textContent);
        document.getElementById("news").textContent = texts.join(": ");
      }
    } catch (error) {
      if (error.name !== "AbortError") throw error;
    }
  };

  form.addEventListener("input", () => {
    clearTimeout(timer);
    timer = setTimeout(update, 200);
  });
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    clearTimeout(timer);
    update();
  });
  if (document.querySelector("#result iframe")) update();
})();
