// Finds stops while somebody types. Without this script the form asks for the page itself.
"use strict";
(() => {
  const form = document.querySelector(".find");
  if (!form || !window.fetch || !window.AbortController) return;
  const { q: input, lang } = form.elements;
  const list = document.querySelector("#found");
  const status = document.querySelector("#said");
  const words = status.dataset;
  const board = (code) => `/board/${encodeURIComponent(code)}${lang.disabled ? "" : `?lang=${lang.value}`}`;
  let asking = new AbortController();
  let later = 0;

  const counted = (count, most) => {
    const text = count === 0 ? words.foundNone : count === 1 ? words.foundOne : count < most ? words.foundSome : words.foundMost;
    return text.replace("{n}", count);
  };

  const element = (name, text) => {
    const made = document.createElement(name);
    made.textContent = text;
    return made;
  };

  // As the server writes names: one line of what can be seen.
  const clean = (text) => text.replace(/[\p{C}\p{Z}]+/gu, " ").trim();

  const show = (stops) => {
    list.replaceChildren(...stops.map((stop) => {
      const [name, said] = [clean(stop.TimingPointName), clean(stop.TimingPointTown)];
      const town = said === "unknown" ? "" : said;
      const own = town && name.startsWith(`${town}, `) ? name.slice(town.length + 2) : name;
      const link = element("a", "");
      link.href = board(stop.TimingPointCode);
      link.lang = "nl";
      link.append(element("b", own), " ", element("span", town), " ");
      if (stop.Distance !== undefined) link.append(element("span", `${stop.Distance} m`), " ");
      link.append(element("code", stop.TimingPointCode));
      const item = document.createElement("li");
      item.append(link);
      return item;
    }));
  };

  const ask = async (url, most = Infinity) => {
    asking.abort();
    asking = new AbortController();
    try {
      const answer = await fetch(url, { signal: asking.signal });
      if (!answer.ok) throw new Error(answer.statusText);
      const stops = (await answer.json()).Stops;
      show(stops);
      status.textContent = counted(stops.length, most);
    } catch (error) {
      if (error.name !== "AbortError") status.textContent = words.failed;
    }
  };

  const find = () => {
    const query = input.value.trim();
    const said = (more) => new URLSearchParams({ ...(query && { q: query }), ...more });
    const here = said(lang.disabled ? {} : { lang: lang.value });
    history.replaceState(null, "", String(here) ? `?${here}` : "/");
    for (const link of document.querySelectorAll("footer nav a")) link.href = `?${said({ lang: link.lang })}`;
    if (query) {
      ask(`/stops?${said()}`, Number(words.most));
    } else {
      asking.abort();
      list.replaceChildren();
      status.textContent = "";
    }
  };

  input.addEventListener("input", () => {
    clearTimeout(later);
    later = setTimeout(find, 120);
  });
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    clearTimeout(later);
    find();
  });

  // Arrows go from the field into the list and back; Tab and Enter do what they do everywhere.
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

  const near = form.querySelector(".second");
  if (near && navigator.geolocation && window.isSecureContext) {
    near.hidden = false;
    near.addEventListener("click", () => {
      status.textContent = words.locating;
      navigator.geolocation.getCurrentPosition(
        ({ coords }) => ask(`/near?lat=${coords.latitude.toFixed(6)}&lon=${coords.longitude.toFixed(6)}`),
        () => { status.textContent = words.notLocated; },
        { timeout: 10000, maximumAge: 60000 },
      );
    });
  }
})();
