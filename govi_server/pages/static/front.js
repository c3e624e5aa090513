// Searches for stops while the user types. Without this script the form requests the page with the results.
"use strict";
(() => {
  const form = document.querySelector(".find");
  if (!form || !window.fetch || !window.AbortController) return;
  const { q: input, lang } = form.elements;
  const list = document.querySelector("#found");
  const status = document.querySelector("#search-status");
  const texts = status.dataset;
  const { after, to, mode, view } = form.elements;  // which other pages do not have
  const isFront = location.pathname === "/";
  // The options that links to boards pass on, in the server's order.
  const options = () => Object.fromEntries([
    ["lang", lang.disabled ? "" : lang.value],
    ...(after ? [
      ["after", after.checkValidity() ? after.value.trim() : ""],
      ["to", to.value.trim()],
      ["mode", mode.value],
      ["view", view.checked ? view.value : ""],
    ] : []),
  ].filter(([, value]) => value));
  const board = (id) => {
    const query = String(new URLSearchParams(options()));
    return `/board/${encodeURIComponent(id)}${query && `?${query}`}`;
  };
  let search = new AbortController();
  const MAX_CODES = 3;  // as on the server
  let timer = 0;

  const countText = (count, limit) => {
    const text = count === 0 ? texts.foundNone : count === 1 ? texts.foundOne : count < limit ? texts.foundSome : texts.foundMost;
    return text.replace("{n}", count);
  };

  const element = (name, text) => {
    const node = document.createElement(name);
    node.textContent = text;
    return node;
  };

  const show = (places) => {
    const focused = list.contains(document.activeElement) && document.activeElement.href;
    list.replaceChildren(...places.map((place) => {
      const link = element("a", "");
      link.href = board(place.id);
      link.lang = "nl";
      link.append(element("b", place.name), " ", element("span", place.town), " ");
      if (place.distance !== undefined) link.append(element("span", `${place.distance} m`), " ");
      const codes = place.codes.length > MAX_CODES ? [...place.codes.slice(0, MAX_CODES), "…"] : place.codes;
      link.append(element("code", codes.join(", ")));
      const item = document.createElement("li");
      item.append(link);
      return item;
    }));
    if (focused) ([...list.querySelectorAll("a")].find((link) => link.href === focused) || input).focus();
  };

  const request = async (url, limit = Infinity) => {
    search.abort();
    search = new AbortController();
    try {
      const response = await fetch(url, { signal: search.signal });
      if (!response.ok) throw new Error(response.statusText);
      const { places } = await response.json();
      show(places);
      status.textContent = countText(places.length, limit);
    } catch (error) {
      if (error.name !== "AbortError") status.textContent = texts.failed;
    }
  };

  const find = () => {
    const query = input.value.trim();
    const parameters = (more) => new URLSearchParams({ ...(query && { q: query }), ...more });
    const address = parameters(options());
    if (isFront) history.replaceState(null, "", String(address) ? `?${address}` : "/");
    for (const link of isFront ? document.querySelectorAll("footer nav a[hreflang]") : []) {
      const { lang: _, ...others } = options();
      link.href = `?${parameters({ ...others, lang: link.lang })}`;
    }
    if (query) {
      request(`/places?${new URLSearchParams({ q: query })}`, Number(texts.maxStops));
    } else {
      search.abort();
      list.replaceChildren();
      status.textContent = "";
    }
  };

  form.addEventListener("input", () => {
    clearTimeout(timer);
    timer = setTimeout(find, 120);
  });
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    clearTimeout(timer);
    find();
  });

  // Arrow keys move from the field into the list and back; Tab and Enter work as usual.
  document.addEventListener("keydown", (event) => {
    const links = [...list.querySelectorAll("a")];
    const at = links.indexOf(document.activeElement);
    if (at < 0 && document.activeElement !== input) return;
    if (event.key === "ArrowDown" && links[at + 1]) links[at + 1].focus();
    else if (event.key === "ArrowUp" && at >= 0) (links[at - 1] || input).focus();
    else if (event.key === "Escape" && at >= 0) input.focus();
    else return;
    event.preventDefault();
  });

  if (!isFront && input.value) find();

  const near = form.querySelector(".second");
  if (near && navigator.geolocation && window.isSecureContext) {
    near.hidden = false;
    near.addEventListener("click", () => {
      status.textContent = texts.locating;
      navigator.geolocation.getCurrentPosition(
        ({ coords }) => request(`/near?lat=${coords.latitude.toFixed(6)}&lon=${coords.longitude.toFixed(6)}`),
        () => { status.textContent = texts.notLocated; },
        { timeout: 10000, maximumAge: 60000 },
      );
    });
  }
})();
